"""Checkpoints that Lightning's ``Trainer`` and ``Fabric`` write."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from ckpttool import describe
from ckpttool.profiles import lay_out

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def trainer(framework: Any, torch: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A trainer that has trained for two epochs."""
    lightning = framework("lightning")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)

    class Classifier(lightning.LightningModule):
        def __init__(self, width: int = 8) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = torch.nn.Sequential(torch.nn.Linear(6, width), torch.nn.Linear(width, 3))

        def training_step(self, batch: Any, index: int) -> Any:
            return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    rows = torch.utils.data.TensorDataset(torch.randn(16, 6), torch.randint(0, 3, (16,)))
    made = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path_factory.mktemp("run"),
    )
    made.fit(Classifier(), torch.utils.data.DataLoader(rows, batch_size=8))
    return made


@pytest.fixture
def full(trainer: Any, tmp_path: Path) -> Path:
    path = tmp_path / "full.ckpt"
    trainer.save_checkpoint(path)
    return path


@pytest.fixture
def light(trainer: Any, tmp_path: Path) -> Path:
    path = tmp_path / "light.ckpt"
    trainer.save_checkpoint(path, weights_only=True)
    return path


def test_a_full_checkpoint_resumes_but_not_bit_for_bit(framework: Any, judged: Any, full: Path) -> None:
    found = judged(full, require="resumable")
    version = framework("lightning").__version__
    assert found["writer"] == {"framework": "Lightning", "version": version, "confidence": "confirmed"}
    assert (found["verdict"], found["integrity"], found["safety"]) == ("resumable", "proved", "plain")
    assert set(found["missing"]) == {"rng: python", "rng: numpy", "rng: torch", "data position"}
    assert found["next"] == "epoch 2"
    assert (found["exit_code"], found["names"]) == (0, {"not-exact"})


def test_an_exact_resume_is_more_than_lightning_saves(judged: Any, full: Path) -> None:
    found = judged(full, require="exact")
    assert found["exit_code"] == 1
    assert "requirement-not-met" in found["names"]


def test_the_tree_is_what_lightning_loads(torch: Any, same: Any, full: Path, light: Path) -> None:
    for path in (full, light):
        same(path, torch.load(path, weights_only=False))


def test_optimizer_slots_have_their_parameters_names(trainer: Any, full: Path) -> None:
    layout = lay_out(describe(full))
    (optimizer,) = layout.optimizers
    assert optimizer.kind == "AdamW"
    model = trainer.lightning_module
    assert [slot.name for slot in optimizer.slots] == [name for name, _ in model.named_parameters()]
    assert [slot.shape for slot in optimizer.slots] == [tuple(p.shape) for p in model.parameters()]
    assert {moment for slot in optimizer.slots for moment, _ in slot.state} == {"exp_avg", "exp_avg_sq", "step"}


def test_weights_alone_are_told_as_such(judged: Any, light: Path) -> None:
    found = judged(light, require="weights")
    assert (found["verdict"], found["integrity"], found["exit_code"]) == ("weights-only", "proved", 0)
    assert "optimizer" in found["missing"]
    assert {"not-resumable", "framework-note"} <= found["names"]
    assert judged(light, require="resumable")["exit_code"] == 1


def test_parameters_are_counted_as_the_module_counts_them(trainer: Any, judged: Any, full: Path) -> None:
    assert judged(full)["parameters"] == sum(p.numel() for p in trainer.lightning_module.parameters())


def test_one_flipped_bit_in_a_weight_is_found(judged: Any, full: Path) -> None:
    checkpoint = describe(full)
    data = bytearray(full.read_bytes())
    spans = [s.span for s in checkpoint.storages if s.span is not None and s.nbytes]
    for span in spans:
        data[span.start] ^= 1
        full.write_bytes(data)
        found = judged(full)
        assert (found["verdict"], found["exit_code"]) == ("damaged", 1)
        assert "crc-mismatch" in found["names"]
        data[span.start] ^= 1


def test_fabric_saves_what_a_loop_hands_it(
    framework: Any, torch: Any, network: Any, step: Any, same: Any, judged: Any, tmp_path: Path
) -> None:
    fabric = framework("lightning").Fabric(accelerator="cpu", devices=1)
    model, optimizer = fabric.setup(network, torch.optim.AdamW(network.parameters()))
    step(model, optimizer)
    path = tmp_path / "fabric.ckpt"
    fabric.save(path, {"model": model, "optimizer": optimizer, "iter_num": 4})
    same(path, torch.load(path, weights_only=False))
    found = judged(path, require="resumable")
    assert (found["verdict"], found["exit_code"]) == ("resumable", 0)
