"""Three lines in a script: nothing where no trace is asked for, everything by name where one is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ckpttool.determinism import Recorder
from ckpttool.determinism.comparing import differing
from ckpttool.determinism.orders import Orders
from ckpttool.determinism.reading import read_trace
from ckpttool.determinism.trace import Process
from ckpttool.determinism.watching import digest_of_files

ROOT = Path(__file__).parents[2]

SCRIPT = """
import pathlib, sys
import torch
from torch import nn
from ckpttool.determinism import Recorder

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 1)
    def loss(self, x):  # no call of itself: hooks see two roots
        return self.head(self.body(x)).square().mean()

torch.manual_seed(0)
model = Model()
optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
best = [9.0]
parts = {"ema": nn.Linear(2, 2), "loader": object(), "counters": lambda: best}
recorder = Recorder.from_env(model=model, optimizer=optimizer, **parts)
print(bool(recorder))
path = pathlib.Path(sys.argv[1])
if path.exists():
    flat = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.float32)
    nn.utils.vector_to_parameters(flat, model.parameters())
    recorder.loaded(path)
for number in range(3):
    recorder.step(number, ids=[number, number + 1])
    model.loss(torch.ones(2, 4)).backward()
    optimizer.step()
    optimizer.zero_grad()
    best[0] -= 1
    path.write_bytes(nn.utils.parameters_to_vector(model.parameters()).detach().numpy().tobytes())
    recorder.saved(path)
"""


LAST: list[bytes] = []
"""What the run of the fixture saved last."""


def trained(folder: Path, **variables: str) -> str:
    given = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    words = [sys.executable, "-c", SCRIPT, str(folder / "state.pkl")]
    done = subprocess.run(words, env=given, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Process:
    pytest.importorskip("torch", reason="torch is not installed")
    folder = tmp_path_factory.mktemp("trace")
    assert trained(folder, CKPTTOOL_TRACE_DIR=str(folder / "trace")) == "True"
    LAST.append((folder / "state.pkl").read_bytes())
    (found,) = read_trace(folder / "trace")
    return found


def test_parts_that_are_named_join_every_step(process: Process) -> None:
    assert [step.number for step in process.steps] == [1, 2, 3]
    fields = process.steps[1].fields
    assert {"ema", "counters", "data", "data.ids", "optimizer.momentum_buffer"} <= set(fields)
    assert "counters.loader" not in fields, "a loader without a state has nothing to be compared"
    odd = differing(process.steps[1], process.steps[2])
    assert {"counters", "data.ids", "params"} <= set(odd)
    assert "ema" not in odd


def test_a_model_that_is_named_is_the_root(process: Process) -> None:
    assert process.state is not None
    names = [name for name in process.state.tensors if name.startswith("params.")]
    assert sorted(names) == ["params.body.bias", "params.body.weight", "params.head.bias", "params.head.weight"]


def test_writers_that_no_hook_sees_are_told(process: Process) -> None:
    assert [(save.number, save.complete) for save in process.saves] == [(1, True), (2, True), (3, True)]
    assert len({save.digest for save in process.saves}) == 3


@pytest.mark.slow
def test_a_load_that_is_told_says_where_the_process_goes_on(process: Process, tmp_path: Path) -> None:
    (tmp_path / "state.pkl").write_bytes(LAST[0])
    known = {process.saves[-1].digest: 3}
    trained(tmp_path, **Orders(tmp_path / "trace", known=known).to_environment())
    (found,) = read_trace(tmp_path / "trace")
    assert found.base == 3
    assert [step.number for step in found.steps] == [4, 5, 6]


def test_without_a_trace_it_does_nothing_and_imports_nothing() -> None:
    code = """if True:
        import sys
        from ckpttool.determinism import Recorder
        recorder = Recorder.from_env(model=object(), counters=lambda: 1 / 0)
        recorder.watch(ema=object())
        recorder.step(1, ids=object(), loss="none")
        recorder.saved("/nowhere"), recorder.loaded("/nowhere")
        print(bool(recorder), sorted({"torch", "xxhash", "numpy"} & set(sys.modules)))
    """
    given = {k: v for k, v in os.environ.items() if not k.startswith("CKPTTOOL_TRACE")}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**given, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "False []"
    assert not Recorder()


def test_files_and_folders_have_digests(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"1")
    one = digest_of_files(tmp_path / "a")
    assert one == digest_of_files(tmp_path / "a") != digest_of_files(tmp_path / "a" / "x")
    (tmp_path / "a" / "y").write_bytes(b"")
    assert digest_of_files(tmp_path / "a") != one
