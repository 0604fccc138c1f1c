"""What training frameworks keep around the weights: adapters, averages, the progress of loops."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]


class Tiny(nn.Module):
    """Two layers for adapters to stand on."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x: Any) -> Any:
        return self.second(self.first(x).tanh())


def square(model: Any, number: int) -> Any:
    return model(torch.randn(4, 6, generator=torch.Generator().manual_seed(number))).square().mean()


def adamw(model: Any) -> Any:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)


# --- peft ----------------------------------------------------------------------------------------------


@pytest.fixture
def adapted(framework: Any, train: Any) -> Any:
    """A model with trained adapters on both layers; alpha is twice the rank."""
    peft = framework("peft")
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["first", "second"], init_lora_weights=False)
    model = peft.get_peft_model(Tiny(), config)
    train(model, adamw(model), square, range(3))
    return model


def test_adapters_of_a_file_get_the_names_of_a_live_model(
    framework: Any, adapted: Any, migrate: Any, equal: Any, tmp_path: Path
) -> None:
    saved = framework("peft").get_peft_model_state_dict(adapted)
    torch.save(saved, tmp_path / "adapter.pt")
    made = migrate(tmp_path / "adapter.pt", "peft-save-to-live")
    live = torch.load(made, weights_only=True)
    assert live.keys() <= adapted.state_dict().keys()
    assert all(equal(live[key], adapted.state_dict()[key]) for key in live)
    assert not adapted.load_state_dict(live, strict=False).unexpected_keys
    assert equal(torch.load(migrate(made, "peft-save-to-live", "--reverse")), saved)


def test_adapters_are_merged_as_peft_merges_them(adapted: Any, migrate: Any, tmp_path: Path) -> None:
    torch.save(adapted.state_dict(), tmp_path / "live.pt")
    made = migrate(tmp_path / "live.pt", "lora-merge", alpha=4, rank=2)
    expected = copy.deepcopy(adapted).merge_and_unload()
    merged = Tiny()
    merged.load_state_dict(torch.load(made, weights_only=True), strict=True)
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(merged.state_dict()[key], value, rtol=1e-6, atol=1e-7)


# --- averages ------------------------------------------------------------------------------------------


def test_the_average_of_a_timm_checkpoint_is_had_out(migrate: Any, equal: Any, tmp_path: Path) -> None:
    """The tree that timm's CheckpointSaver writes: tests/interop/test_timm.py holds it to the real one."""
    model, average = Tiny(), Tiny()
    with torch.no_grad():
        average.first.weight.mul_(0.5)
    saved = {
        "epoch": 3,
        "arch": "tiny",
        "state_dict": model.state_dict(),
        "optimizer": adamw(model).state_dict(),
        "version": 2,
        "state_dict_ema": average.state_dict(),
        "metric": 41.5,
    }
    torch.save(saved, tmp_path / "last.pth.tar")
    made = torch.load(migrate(tmp_path / "last.pth.tar", "ema-extract-timm"), weights_only=True)
    assert made.keys() == {"epoch", "arch", "version", "state_dict", "metric"}
    Tiny().load_state_dict(made["state_dict"], strict=True)
    assert equal(dict(made["state_dict"]), dict(average.state_dict()))


@pytest.fixture
def mmengine_saved(framework: Any, tmp_path: Path) -> tuple[Path, Any]:
    """A checkpoint through the real hook, which swaps the two as it saves."""
    framework("mmengine")
    hook = framework("mmengine.hooks").EMAHook(momentum=0.5)
    runner = type("Runner", (), {"model": Tiny(), "iter": 0, "epoch": 0, "logger": None})()
    hook.before_run(runner)
    for number in range(3):
        hook.after_train_iter(runner, number)
        with torch.no_grad():
            runner.model.first.weight.add_(1.0)
    checkpoint = {
        "meta": {"epoch": 1, "iter": 1, "mmengine_version": "0.10.7"},
        "state_dict": runner.model.state_dict(),
        "optimizer": adamw(runner.model).state_dict(),
    }
    hook.before_save_checkpoint(runner, checkpoint)
    torch.save(checkpoint, tmp_path / "epoch_1.pth")
    return tmp_path / "epoch_1.pth", runner


def test_average_and_weights_of_mmengine_change_places(
    mmengine_saved: tuple[Path, Any], migrate: Any, equal: Any
) -> None:
    path, runner = mmengine_saved
    before = torch.load(path)
    assert not equal(before["state_dict"]["first.weight"], runner.model.first.weight.detach())
    made = migrate(path, "mmengine-ema")
    after = torch.load(made)
    assert equal(after["state_dict"]["first.weight"], runner.model.first.weight.detach())
    assert equal(after["ema_state_dict"]["module.first.weight"], before["state_dict"]["first.weight"])
    assert after["ema_state_dict"]["steps"] == before["ema_state_dict"]["steps"]
    assert equal(torch.load(migrate(made, "mmengine-ema", "--reverse")), before)


# --- Lightning -----------------------------------------------------------------------------------------


def as_version_1(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The loops as Lightning 1.9 had them, from those of a real checkpoint of today."""
    fit = checkpoint["loops"]["fit_loop"]
    new, old = "epoch_loop.automatic_optimization", "epoch_loop.batch_loop.optimizer_loop"
    found = {}
    for key, value in fit.items():
        if key.startswith("epoch_loop.manual_optimization"):
            key = key.replace("manual_optimization", "batch_loop.manual_loop")
        found[key.replace(new, old)] = value
    found[f"{old}.optim_progress"] = {**found[f"{old}.optim_progress"], "optimizer_position": 0}
    found["epoch_loop.batch_loop.state_dict"] = {}
    loops = {**checkpoint["loops"], "fit_loop": found}
    return {**checkpoint, "pytorch-lightning_version": "1.9.5", "loops": loops}


@pytest.fixture
def fitted(framework: Any, tmp_path: Path) -> tuple[Path, Callable[[], Any], Any]:
    """A checkpoint after one epoch, what makes a trainer for two, and a model for it."""
    lightning = framework("lightning")

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Tiny()

        def training_step(self, batch: Any, index: int) -> Any:
            return self.net(batch[0]).square().mean()

        def configure_optimizers(self) -> Any:
            return adamw(self)

        def train_dataloader(self) -> Any:
            rows = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
            return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(rows), batch_size=4)

    def trainer(epochs: int) -> Any:
        return lightning.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False,
            enable_model_summary=False, enable_checkpointing=False, default_root_dir=tmp_path,
        )  # fmt: skip

    first = trainer(1)
    first.fit(Module())
    first.save_checkpoint(tmp_path / "today.ckpt")
    return tmp_path / "today.ckpt", lambda: trainer(3), Module


def test_loops_of_lightning_1_get_the_names_of_2(
    fitted: Any, migrate: Any, equal: Any, framework: Any, tmp_path: Path
) -> None:
    """Lightning's own upgrade of the same file is the oracle."""
    path, _, _ = fitted
    old = as_version_1(torch.load(path, weights_only=False))
    torch.save(old, tmp_path / "old.ckpt")
    made = torch.load(migrate(tmp_path / "old.ckpt", "lightning-2-loops"), weights_only=False)
    upgrade = framework("lightning.pytorch.utilities.migration").migrate_checkpoint
    expected, _ = upgrade(copy.deepcopy(old))
    fit, wanted = made["loops"]["fit_loop"], expected["loops"]["fit_loop"]
    assert fit.keys() == wanted.keys()
    assert all(equal(fit[key], wanted[key]) for key in fit)
    assert equal(made["state_dict"], old["state_dict"])
    assert equal(made["optimizer_states"], old["optimizer_states"])


def test_lightning_resumes_at_the_same_step(fitted: Any, migrate: Any, tmp_path: Path) -> None:
    path, trainer, module = fitted
    old = as_version_1(torch.load(path, weights_only=False))
    torch.save(old, tmp_path / "old.ckpt")
    made = migrate(tmp_path / "old.ckpt", "lightning-2-loops")
    ends = []
    for start in (path, made):
        model, run = module(), trainer()
        run.fit(model, ckpt_path=start)
        ends.append((run.global_step, {k: v.tolist() for k, v in model.state_dict().items()}))
    assert ends[0] == ends[1]
    assert ends[0][0] == 6


def test_a_lightning_module_moves_with_its_optimizer(fitted: Any, migrate: Any, equal: Any, tmp_path: Path) -> None:
    """The container stays whole where rules rename what it trains."""
    path, _, _ = fitted
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "ckpttool: 1\nabout: a child renamed\nrules:\n- rename: 'net.{rest...}'\n  to: 'model.{rest...}'\n"
    )
    made = torch.load(migrate(path, str(rules)), weights_only=False)
    before = torch.load(path, weights_only=False)
    assert [key.replace("model.", "net.") for key in made["state_dict"]] == list(before["state_dict"])
    assert equal(made["optimizer_states"], before["optimizer_states"])
    assert equal(made["loops"], before["loops"])
