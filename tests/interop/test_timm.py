"""The file that timm's ``CheckpointSaver`` writes. timm is not in requirements.txt: it asks for torchvision."""

from __future__ import annotations

import argparse
import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def timm_utils(torch: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """timm's utilities without its models, which need torchvision for one class."""
    spec = find_spec("timm")
    if spec is None:
        pytest.skip("timm is not installed")
    bare = ModuleType("timm")
    bare.__path__ = list(spec.submodule_search_locations or ())
    misc: Any = ModuleType("torchvision.ops.misc")
    misc.FrozenBatchNorm2d = type("FrozenBatchNorm2d", (torch.nn.Module,), {})
    stand_ins = {"torchvision": ModuleType("torchvision"), "torchvision.ops": ModuleType("torchvision.ops")}
    for name, module in (stand_ins | {"torchvision.ops.misc": misc, "timm": bare}).items():
        monkeypatch.setitem(sys.modules, name, module)
    try:
        return importlib.import_module("timm.utils")
    except ImportError as error:
        pytest.skip(f"timm.utils does not import: {error}")


@pytest.fixture
def saved(timm_utils: Any, torch: Any, network: Any, step: Any, tmp_path: Path) -> Path:
    utils = timm_utils
    optimizer = torch.optim.AdamW(network.parameters())
    step(network, optimizer)
    average = utils.ModelEmaV3(network, decay=0.9)
    arguments = argparse.Namespace(model="tiny", epochs=9, sched="cosine", lr=1e-3, amp=True)
    saver = utils.CheckpointSaver(
        network,
        optimizer,
        args=arguments,
        model_ema=average,
        amp_scaler=utils.NativeScaler(device="cpu"),
        checkpoint_dir=str(tmp_path),
    )
    saver.save_checkpoint(3, metric=41.5)
    return tmp_path / "checkpoint-3.pth.tar"


def test_timm_is_recognised_and_resumes_at_the_next_epoch(judged: Any, saved: Path) -> None:
    found = judged(saved, require="resumable")
    assert found["writer"]["framework"] == "timm"
    assert (found["verdict"], found["next"], found["exit_code"]) == ("resumable", "epoch 4", 0)


def test_the_tree_is_what_torch_loads(torch: Any, same: Any, saved: Path) -> None:
    same(saved, torch.load(saved, weights_only=False))
