"""What accelerate's ``save_state`` and PEFT's ``save_pretrained`` write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ckpttool import describe
from ckpttool.profiles import lay_out

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def state(framework: Any, torch: Any, network: Any, tmp_path: Path) -> tuple[Path, Any]:
    """The folder of one saved state, and the model."""
    accelerator = framework("accelerate").Accelerator(cpu=True)
    optimizer = torch.optim.AdamW(network.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    rows = torch.utils.data.TensorDataset(torch.randn(16, 6), torch.randint(0, 3, (16,)))
    loader = torch.utils.data.DataLoader(rows, batch_size=8, shuffle=True)
    model, optimizer, loader, scheduler = accelerator.prepare(network, optimizer, loader, scheduler)
    for inputs, labels in loader:
        accelerator.backward(torch.nn.functional.cross_entropy(model(inputs), labels))
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    folder = tmp_path / "state"
    accelerator.save_state(str(folder))
    accelerator.free_memory()
    return folder, model


def test_a_saved_state_resumes(judged: Any, state: tuple[Path, Any]) -> None:
    found = judged(state[0], require="resumable")
    assert (found["format"], found["writer"]["framework"]) == ("directory", "accelerate")
    assert (found["verdict"], found["safety"], found["exit_code"]) == ("resumable", "plain", 0)
    assert found["missing"] == ["data position"]
    assert found["names"] == {"not-exact"}
    assert found["parameters"] == sum(p.numel() for p in state[1].parameters())


def test_its_weights_are_the_models(content: Any, as_content: Any, state: tuple[Path, Any]) -> None:
    assert content(state[0] / "model.safetensors") == as_content(state[1].state_dict())


def test_its_files_are_what_torch_loads(torch: Any, same: Any, state: tuple[Path, Any]) -> None:
    for name in ("optimizer.bin", "scheduler.bin", "random_states_0.pkl"):
        same(state[0] / name, torch.load(state[0] / name, weights_only=False))


def test_its_generators_are_all_found(state: tuple[Path, Any]) -> None:
    layout = lay_out(describe(state[0]))
    assert {"rng: python", "rng: numpy", "rng: torch"} <= set(layout.readiness.has)
    (optimizer,) = layout.optimizers
    assert (optimizer.kind, len(optimizer.slots)) == ("AdamW", 4)


def test_without_its_optimizer_it_does_not_resume(judged: Any, state: tuple[Path, Any]) -> None:
    (state[0] / "optimizer.bin").unlink()
    found = judged(state[0], require="resumable")
    assert found["exit_code"] == 1
    assert "optimizer" in found["missing"]


def test_a_lora_adapter_is_weights_alone(
    framework: Any, torch: Any, judged: Any, content: Any, as_content: Any, network: Any, tmp_path: Path
) -> None:
    peft = framework("peft")
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["0", "3"])
    model = peft.get_peft_model(network, config)
    model.save_pretrained(tmp_path)
    loaded = framework("safetensors.torch").load_file(tmp_path / "adapter_model.safetensors")
    assert len(loaded) == 4
    assert content(tmp_path / "adapter_model.safetensors") == as_content(loaded)
    found = judged(tmp_path, require="weights")
    assert (found["verdict"], found["safety"], found["exit_code"]) == ("weights-only", "plain", 0)
    # A fresh adapter changes nothing: its second matrices are zeros, and saying so is right.
    assert found["names"] <= {"all-zero", "not-resumable"}
