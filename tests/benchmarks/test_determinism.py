"""What recording costs a step of training, and what a check of twenty cuts takes."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ckpttool.determinism.check import Wishes, check
from ckpttool.determinism.orders import Orders
from ckpttool.determinism.running import Command

pytest.importorskip("torch", reason="torch is not installed")
pytestmark = pytest.mark.bench

Rows = list[tuple[str, str, str, str]]

# A transformer of 5 million parameters; AdamW, so that three times as many numbers are digested after every step.
# What is measured is the time within the recorder: on a busy machine two runs differ by more than it takes.
STEPS = """
import statistics, sys, time, torch
from torch import nn
from ckpttool.determinism.recorder import Recorder, install
own = 0.0
for name in ("after_step", "before_root", "before_backward"):
    def timed(self, *args, original=getattr(Recorder, name)):
        global own
        start = time.thread_time()
        try:
            return original(self, *args)
        finally:
            own += time.thread_time() - start
    setattr(Recorder, name, timed)
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
times = []
for step in range(int(sys.argv[1])):
    own, start = 0.0, time.process_time()
    loss = nn.functional.cross_entropy(model(x).flatten(0, 1), x.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    times.append((time.process_time() - start, own))
print(*(statistics.median(column) for column in zip(*times[6:])))
"""


def test_what_recording_costs_a_step(rows: Rows, tmp_path: Path) -> None:
    package = str(Path(__file__).parents[2])
    # Not by way of the path: the recorder is put in place once its parts are timed.
    variables = {**os.environ, **Orders(tmp_path).to_environment(), "PYTHONPATH": package}
    done = subprocess.run(
        [sys.executable, "-c", STEPS, "30"], env=variables, check=True, capture_output=True, text=True
    )
    whole, own = map(float, done.stdout.split())
    share = own / (whole - own)
    text = f"{1e3 * whole:.0f} ms", f"{1e3 * (whole - own):.0f} ms (not recorded)", f"{100 * share:+.1f} %"
    rows.append(("a step of 5 million parameters, recorded, processor time", *text))
    assert share <= 0.05


def test_what_twenty_cuts_take(rows: Rows, tmp_path: Path) -> None:
    words = "-m ckpttool.trainer --out {out} --quiet --steps 60 --batch-size 256 --save-every 6 --eval-every 10"
    command = Command((sys.executable, *words.split()))
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    revision = ("environment.revision", "digests.about")  # of the code, which others may change meanwhile
    found = check(command, Wishes(30, cuts=20, jobs=2, power=False, ignore=revision), tmp_path)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert found.status == "exact", found.message
    assert len(found.branches) == 20
    rows.append(("determinism check of digits, 20 cuts, 30 steps", f"{seconds:.0f} s", "", ""))
    rows.append(("the same, processor time of all runs", f"{spent:.0f} s", "", ""))
    assert min(seconds, spent) < 120  # a busy machine takes longer, and no more time of its processors
