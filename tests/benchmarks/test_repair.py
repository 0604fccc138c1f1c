"""Salvage against `zip -FF`, which makes an archive of the entries that it finds and none that torch could read."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]
pytest.importorskip("torch", reason="torch is not installed")

TOOL = [sys.executable, "-m", "ckpttool"]
RUNS = 5
STARTED = 1.0
"""Seconds that starting, and reading a tree of 300 tensors, may take."""

CUTS = (25, 50, 75, 99)
SMALL = """
import sys, torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(4000, 256)
        layer = nn.TransformerEncoderLayer(256, 4, 1024)
        self.body = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
        self.head = nn.Linear(256, 4000)
net = Net()
optimizer = torch.optim.AdamW(net.parameters())
for parameter in net.parameters():
    parameter.grad = torch.randn_like(parameter)
optimizer.step()
torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, sys.argv[1])
"""
LARGE = """
import sys, torch
torch.save({f"layers.{i}.weight": torch.randn(1 << 20) for i in range(256)}, sys.argv[1])
"""
READABLE = "import sys, torch; torch.load(sys.argv[1], weights_only=True)"


@pytest.fixture(scope="module", params=["80 MB, 300 tensors", "1 GB, 256 tensors"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    path = tmp_path_factory.mktemp("whole") / "whole.pth"
    code = SMALL if request.param.startswith("80") else LARGE
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    return request.param, path


def spent(command: list[str], answer: str = "") -> float:
    """A command's processor time in seconds; whatever it says."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=False, input=answer, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.skipif(shutil.which("zip") is None, reason="zip is not installed")
@pytest.mark.parametrize("cut", CUTS)
def test_salvage_of_a_cut_file(
    tmp_path: Path, whole: tuple[str, Path], rows: list[tuple[str, str, str, str]], cut: int
) -> None:
    """In turn, the least processor time of some runs: the clock of a shared machine says little."""
    what, path = whole
    bad, saved, zipped = tmp_path / "cut.pth", tmp_path / "saved.pth", tmp_path / "zipped.zip"
    with path.open("rb") as file, bad.open("wb") as out:
        left = path.stat().st_size * cut // 100
        shutil.copyfileobj(file, out)
        out.truncate(left)
    mine: list[float] = []
    theirs: list[float] = []
    for _ in range(RUNS):
        saved.unlink(missing_ok=True)
        mine.append(spent([*TOOL, "repair", str(bad), "-o", str(saved)]))
        zipped.unlink(missing_ok=True)
        theirs.append(spent(["zip", "-FF", str(bad), "--out", str(zipped)], "y\n" * 8))
    asked = subprocess.run([*TOOL, "repair", str(bad), "--json"], check=False, capture_output=True, text=True)
    payload = json.loads(asked.stdout)["payload"]
    share = payload["kept"] / payload["bytes"]
    read = subprocess.run([sys.executable, "-c", READABLE, str(zipped)], check=False, capture_output=True)
    gets = "torch reads it" if read.returncode == 0 else "nothing that torch reads"
    ours, other = min(mine), min(theirs)
    rows.append(
        (
            f"repair, {what} cut at {cut} %, {100 * share:.1f} % back; processor time",
            f"{ours:.2f} s",
            f"{other:.2f} s (`zip -FF`: {gets})",
            f"{other / ours:.1f} ×",
        )
    )
    assert subprocess.run([sys.executable, "-c", READABLE, str(saved)], check=False).returncode == 0
    assert share > 0.9 * cut / 100
    assert ours < max(STARTED, 1.2 * other)
