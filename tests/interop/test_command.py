"""The command as a user types it, over a folder that holds what several writers left."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).parents[2]


def test_verify_a_folder(framework: Any, torch: Any, network: Any, step: Any, tmp_path: Path) -> None:
    optimizer = torch.optim.AdamW(network.parameters())
    step(network, optimizer)
    state = {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 1}
    torch.save(state, tmp_path / "a.pt")
    torch.save(state, tmp_path / "b.pt")
    framework("safetensors.torch").save_file(network.state_dict(), tmp_path / "c.safetensors")
    data = (tmp_path / "b.pt").read_bytes()
    (tmp_path / "b.pt").write_bytes(data[: len(data) // 2])

    command = [sys.executable, "-m", "ckpttool", "verify", str(tmp_path), "--json", "--no-config"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    found = json.loads(done.stdout)
    assert (found["schema"], found["ok"], found["exit_code"]) == ("ckpttool.verify/1", False, 1)
    assert (done.returncode, done.stderr) == (1, "")
    assert {Path(t["path"]).name: t["verdict"] for t in found["targets"]} == {
        "a.pt": "resumable",
        "b.pt": "damaged",
        "c.safetensors": "weights-only",
    }
    for target in found["targets"]:
        assert target["bytes"] == Path(target["path"]).stat().st_size
        for finding in target["findings"]:
            assert finding.keys() == {"code", "name", "severity", "where", "message", "facts", "hint"}
