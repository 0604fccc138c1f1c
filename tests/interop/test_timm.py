"""The file that timm's ``CheckpointSaver`` writes. Its own utilities write it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def saved(framework: Any, torch: Any, network: Any, step: Any, tmp_path: Path) -> Path:
    utils = framework("timm.utils")
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
