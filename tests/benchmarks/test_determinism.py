"""What recording costs a step of training, and what a check of twenty cuts takes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from ckpttool.determinism.check import Wishes, check
from ckpttool.determinism.orders import VARIABLE, Orders
from ckpttool.determinism.running import Command, environment

pytest.importorskip("torch", reason="torch is not installed")
pytestmark = pytest.mark.bench

Rows = list[tuple[str, str, str, str]]

# A transformer of 5 million parameters; AdamW, so that three times as many numbers are digested after every step.
# Every other step is recorded, so that both kinds see the same machine.
STEPS = """
import statistics, sys, time, torch
from torch import nn
from ckpttool.determinism.recorder import Recorder, install
recorded = True
for name in ("after_step", "root_called"):
    def gated(self, *args, original=getattr(Recorder, name)):
        return original(self, *args) if recorded else None
    setattr(Recorder, name, gated)
install()
torch.set_num_threads(1)
torch.manual_seed(0)
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(1000, 256)
        layer = nn.TransformerEncoderLayer(256, 4, 1024, 0.1, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
        self.head = nn.Linear(256, 1000)
    def forward(self, x):
        return self.head(self.layers(self.embed(x)))
model = Model()
assert 4.9e6 < sum(p.numel() for p in model.parameters()) < 5.5e6
optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
x = torch.randint(0, 1000, (8, 128))
times = {False: [], True: []}
for step in range(int(sys.argv[1])):
    recorded = step < 2 or step % 2 == 0
    start = time.process_time()
    loss = nn.functional.cross_entropy(model(x).flatten(0, 1), x.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step >= 6:
        times[recorded].append(time.process_time() - start)
print(statistics.median(times[True]), statistics.median(times[False]))
"""


def test_what_recording_costs_a_step(rows: Rows, tmp_path: Path) -> None:
    variables = {**environment(Orders(tmp_path)), VARIABLE: str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", STEPS, "66"], env=variables, check=True, capture_output=True, text=True
    )
    recorded, plain = map(float, done.stdout.split())
    share = recorded / plain - 1
    text = f"{1e3 * recorded:.0f} ms", f"{1e3 * plain:.0f} ms (not recorded)", f"{100 * share:+.1f} %"
    rows.append(("a step of 5 million parameters, recorded, processor time", *text))
    assert share <= 0.05


def test_what_twenty_cuts_take(rows: Rows, tmp_path: Path) -> None:
    words = (
        "-m ckpttool.trainer --out {out} --quiet --steps 60 --batch-size 256 --save-every 6 --eval-every 10"
    )
    command = Command((sys.executable, *words.split()))
    start = time.perf_counter()
    found = check(command, Wishes(30, cuts=20, jobs=2, power=False), tmp_path)
    seconds = time.perf_counter() - start
    assert found.status == "exact", found.message
    assert len(found.branches) == 20
    rows.append(("determinism check of digits, 20 cuts, 30 steps", f"{seconds:.0f} s", "", ""))
    assert seconds < 120
