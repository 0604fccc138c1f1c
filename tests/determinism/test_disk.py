"""What a power cut takes: by the events of a save, and on a real disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from ckpttool.determinism.disk import Event, Loss, loss_of

WRITE, FLUSH, FOLDER = ["write", "/o/t"], ["sync", "/o/t"], ["sync", "/o"]
RENAME, LATER = ["rename", "/o/t", "/o/a", "/k"], ["sync", "/o/a"]
CASES: dict[str, tuple[list[Event], Loss]] = {
    "nothing": ([], Loss()),
    "in place": ([["write", "/o/a"]], Loss(("/o/a",))),
    "in place, flushed": ([["write", "/o/a"], LATER], Loss()),
    "flushed, then written again": ([WRITE, FLUSH, WRITE], Loss(("/o/t",))),
    "renamed, nothing flushed": ([WRITE, RENAME], Loss(("/o/a",))),
    "renamed, its folder alone flushed": ([WRITE, RENAME, FOLDER], Loss(("/o/a",))),
    "flushed and renamed": ([WRITE, FLUSH, RENAME], Loss((), (("/o/t", "/o/a", "/k"),))),
    "flushed by its new name": ([WRITE, RENAME, LATER, FOLDER], Loss()),
    "the folder flushed too early": ([WRITE, FLUSH, FOLDER, RENAME], Loss((), (("/o/t", "/o/a", "/k"),))),
    "durable": ([WRITE, FLUSH, RENAME, FOLDER], Loss()),
    "removed again": ([WRITE, ["remove", "/o/t"]], Loss()),
    "a folder is renamed": (
        [["write", "/o/t/x"], ["write", "/o/t/y"], ["sync", "/o/t/x"], RENAME, FOLDER],
        Loss(("/o/a/y",)),
    ),
    "a folder is removed": ([["write", "/o/t/x"], ["remove", "/o/t"]], Loss()),
    "neighbours are not within": ([["write", "/o/tt"], ["remove", "/o/t"]], Loss(("/o/tt",))),
}


@pytest.mark.parametrize("name", CASES)
def test_what_no_flush_made_last_is_lost(name: str) -> None:
    events, loss = CASES[name]
    assert loss_of(events) == loss
    assert bool(loss) == bool(str(loss))


@given(st.lists(st.sampled_from([WRITE, FLUSH, FOLDER, RENAME, LATER, ["remove", "/o/a"]]), max_size=12))
def test_who_flushes_everything_at_the_end_loses_nothing(events: list[Event]) -> None:
    loss = loss_of(events)
    assert not loss_of([*events, *(["sync", path] for path in loss.files), FOLDER])


SAVE = """
import os, sys
from pathlib import Path
from ckpttool.determinism.disk import watched_disk
from ckpttool.determinism.orders import Orders
os.chdir(sys.argv[1])
log = watched_disk(Orders(Path(sys.argv[1]) / "trace", disk=True))
log.begins("", is_first=True)
with open("t", "w") as file:
    file.write("new")
    file.flush()
    if "file" in sys.argv[2]:
        os.fsync(file)
os.replace("t", "a")
if "folder" in sys.argv[2]:
    os.fsync(descriptor := os.open(".", os.O_RDONLY))
if "everything" in sys.argv[2]:
    os.sync()
import json
print(json.dumps(log.events))
"""


@pytest.mark.parametrize(
    ("flushed", "left"),
    [
        ("nothing", {"a": ""}),
        ("folder", {"a": ""}),
        ("file", {"a": "old", "t": "new"}),
        ("file folder", {"a": "new"}),
        ("everything", {"a": "new"}),
    ],
)
def test_what_is_left_on_the_disk(tmp_path: Path, flushed: str, left: dict[str, str]) -> None:
    import json

    (tmp_path / "trace").mkdir()
    (tmp_path / "a").write_text("old")
    given_path = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    words = [sys.executable, "-c", SAVE, str(tmp_path), flushed]
    done = subprocess.run(words, env=given_path, capture_output=True, text=True, check=True, timeout=60)
    loss_of(json.loads(done.stdout)).there().take()
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()} == left
