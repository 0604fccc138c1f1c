"""``ckpttool train`` as a user meets it: settings, refusals, folders in use, disks that are full, signals, pictures."""

from __future__ import annotations

import ast
import io
import json
import os
import signal
import time
import tokenize
from pathlib import Path
from typing import Any

import pytest

import ckpttool
from ckpttool import UsageError
from ckpttool.cli.train import read_config, settled
from ckpttool.trainer import config
from ckpttool.trainer.config import Config, differences, make_config

LOOP = "ckpttool.trainer.train"
SHORT = ("--task", "tabular", "--steps", 12, "--eval-every", 4, "--save-every", 4, "--log-every", 1)


# --- settings: without torch -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lrr": 0.1}, "did you mean lr"),
        ({"task": "digit"}, "one of digits, gpt, tabular"),
        ({"lr": -1.0}, "a number from 0.0 on"),
        ({"lr": float("nan")}, "a number from 0.0 on"),
        ({"steps": 0}, "from 1 on"),
        ({"steps": "10"}, "a whole number from 1 on is needed"),
        ({"steps": True}, "a whole number from 1 on is needed"),
        ({"ema": 1.0}, "less than 1.0"),
        ({"ema": "1.0"}, "less than 1.0"),
        ({"lr": "0.1"}, "a number from 0.0 on"),
        ({"lr": 10**400}, "a number from 0.0 on"),
        ({"seed": 2**63}, "less than 9223372036854775808"),
        ({"augment": 1}, "true or false"),
        ({"inject": 1}, "text"),
        ({"precision": "fp8"}, "fp32, bf16, fp16"),
        ({"save_budget": "much"}, "less than 1.0"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_config(given)


def test_a_tasks_own_defaults_and_a_budget() -> None:
    assert make_config({"task": "tabular"}).schedule == "plateau"
    assert make_config({"task": "tabular", "schedule": "cosine"}).schedule == "cosine"
    found = make_config({"save_budget": "2%"})
    assert (found.save_budget, found.save_every) == (0.02, 0)
    assert make_config({"save_budget": 0.5, "save_every": 7}).save_every == 7


def test_files_of_settings(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('task = "gpt"\nlr = 1\n')
    (tmp_path / "b.py").write_text("import math\nBASE = 2\n_x = 1\ntask = 'gpt'\nlr = BASE / 2\n")
    assert make_config(read_config(tmp_path / "a.toml")) == make_config(read_config(tmp_path / "b.py"))
    for name, text in (("c.toml", "lr = "), ("d.py", "1 / 0"), ("e.py", "lr ="), ("f.toml", "\udcff")):
        (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(UsageError, match=name):
            read_config(tmp_path / name)
    with pytest.raises(UsageError, match="No such file"):
        read_config(tmp_path / "none.toml")
    (tmp_path / "g.py").write_text("batchsize = 3")
    with pytest.raises(UsageError, match=r"g\.py – no setting is called 'batchsize'; did you mean batch_size"):
        settled(tmp_path / "g.py", {})


def test_what_may_change() -> None:
    saved = {"task": "digits", "steps": 300, "lr": 0.1, "old": 1, "workers": 0}
    lines = differences(saved, Config(lr=0.1, workers=3, steps=400))
    assert lines[0] == "steps: saved 300, now 400"
    assert "old: saved 1, now '(nothing)'" in lines
    assert not any(line.startswith(("lr", "workers", "task")) for line in lines)
    assert not any(line.startswith("steps") for line in differences(saved, Config(schedule="constant", steps=9)))


def test_it_can_be_read_in_one_sitting() -> None:
    """Lines that hold code, without docstrings, and without the faults that it can be given."""
    count = 0
    for path in Path(config.__file__).parent.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        holders = [node for node in ast.walk(ast.parse(text)) if hasattr(node, "body") and isinstance(node.body, list)]
        plain = [line for node in holders for line in node.body if isinstance(line, ast.Expr)]
        quoted = {
            number
            for line in plain
            if isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)
            for number in range(line.lineno, (line.end_lineno or 0) + 1)
        }
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        code = {number for t in tokens if t.string.strip() and t.type != tokenize.COMMENT for number in span(t)}
        count += len(code - quoted)
    assert 500 < count <= 1050


def span(token: tokenize.TokenInfo) -> range:
    return range(token.start[0], token.end[0] + 1)


# --- the command ---------------------------------------------------------------------------------------


def test_a_run_and_its_checkpoint(trainers: Any, tmp_path: Path) -> None:
    ended = trainers(tmp_path / "run", *SHORT)
    assert ended.status == 0, ended.text
    assert "all steps done after 12 steps; best loss" in ended.text
    assert "% of the time" in ended.text
    path = tmp_path / "run" / "step-00000012.pth"
    report = ckpttool.verify([path], require="exact", fail_on="info")
    assert report.exit_code == 0, report.json
    assert report.subjects[0].verdict == "exact"
    recorded = ckpttool.load(path)["config"]
    assert (recorded["task"], recorded["steps"]) == ("tabular", 12)


def test_another_run_is_not_overwritten(trainers: Any, tmp_path: Path) -> None:
    assert trainers(tmp_path, *SHORT, "--quiet").status == 0
    before = {path.name: path.read_bytes() for path in tmp_path.glob("step-*")}
    ended = trainers(tmp_path, *SHORT, "--lr", 0.5, "--seed", 3)
    assert ended.status == 2
    assert "lr: saved 0.01, now 0.5" in ended.text
    assert "seed: saved 0, now 3" in ended.text
    assert "only these may change: " in ended.text
    ended = trainers(tmp_path, "--task", "digits")
    assert "task: saved 'tabular', now 'digits'" in ended.text
    assert {path.name: path.read_bytes() for path in tmp_path.glob("step-*")} == before
    assert trainers(tmp_path, *SHORT, "--steps", 14, "--keep", 9).status == 0  # a plateau does not know of the end


def test_a_folder_of_something_else(trainers: Any, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.zeros(2)}, tmp_path / "step-00000003.pth")
    ended = trainers(tmp_path, *SHORT)
    assert (ended.status, "not a checkpoint of this trainer" in ended.text) == (2, True)


def test_nothing_sound_is_left(trainers: Any, tmp_path: Path) -> None:
    (tmp_path / "step-00000004.pth").write_bytes(b"")
    ended = trainers(tmp_path, *SHORT)
    assert (ended.status, "none of its checkpoints is sound" in ended.text) == (2, True)


@pytest.mark.parametrize("harm", ["missing", "unread", "value"])
def test_a_checkpoint_with_other_keys(trainers: Any, tmp_path: Path, harm: str) -> None:
    assert trainers(tmp_path, *SHORT, "--quiet").status == 0
    path = tmp_path / "step-00000012.pth"
    state = ckpttool.load(path)
    if harm == "missing":
        del state["ema"]["updates"]
    elif harm == "unread":
        state["scheduler"]["momentum"] = 1
    else:
        state["model"]["net.0.bias"][0] += 1
    ckpttool.save(state, path)
    ended = trainers(tmp_path, *SHORT, "--steps", 14)
    wanted = {
        "missing": "lacks ema.updates", "unread": "has, and nobody reads, scheduler.momentum",
        "value": "changed since it was saved: model",
    }  # fmt: skip
    assert (ended.status, wanted[harm] in ended.text) == (2, True), ended.text


def test_two_trainers_on_one_folder(trainers: Any, tmp_path: Path) -> None:
    pid = trainers.start(tmp_path, "--task", "digits", "--steps", 100_000, "--log-every", 1)
    try:
        until(lambda: (tmp_path / "log.csv").exists())
        ended = trainers(tmp_path, "--task", "digits", "--steps", 100_000)
        assert (ended.status, f"process {pid}" in ended.text) == (2, True), ended.text
    finally:
        os.kill(pid, signal.SIGTERM)
    assert trainers.wait(pid).status == 143


def test_signals(trainers: Any, tmp_path: Path) -> None:
    """SIGUSR1 saves and goes on, Ctrl-C saves and stops."""
    pid = trainers.start(tmp_path, "--task", "digits", "--steps", 100_000, "--save-every", 0, "--eval-every", 0)
    until(lambda: (tmp_path / "log.csv").exists() and len((tmp_path / "log.csv").read_text().splitlines()) > 1)
    os.kill(pid, signal.SIGUSR1)
    until(lambda: list(tmp_path.glob("step-*.pth")))
    rows = len((tmp_path / "log.csv").read_text().splitlines())
    until(lambda: len((tmp_path / "log.csv").read_text().splitlines()) > rows)
    os.kill(pid, signal.SIGINT)
    ended = trainers.wait(pid)
    assert (ended.status, "SIGINT after" in ended.text) == (130, True), ended.text
    assert len(list(tmp_path.glob("step-*.pth"))) == 2


def test_a_disk_that_is_full(trainers: Any, tmp_path: Path) -> None:
    """Files cannot grow: the first checkpoint was small enough, the folder is as it was."""
    good = trainers(tmp_path, *SHORT, "--steps", 12, at=[f"{LOOP}.update", 6], do="SIGTERM")
    assert good.status == 143
    before = sorted(path.name for path in tmp_path.glob("step-*.pth"))
    full = {"at": ["ckpttool.writing.temporary.Replacement.write", 3], "do": "ENOSPC"}
    ended = trainers(tmp_path, *SHORT, **full)
    assert (ended.status, "the disk is full" in ended.text) == (2, True), ended.text
    assert sorted(path.name for path in tmp_path.glob("step-*.pth")) == before
    ended = trainers(tmp_path, *SHORT, "--on-full-disk", "go-on", **full)
    assert (ended.status, "warning: not saved, training goes on: " in ended.text) == (0, True), ended.text


def test_a_folder_that_cannot_be_made(trainers: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = trainers(tmp_path / "file" / "run", *SHORT)
    assert (ended.status, "cannot be made" in ended.text) == (2, True), ended.text


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only(trainers: Any, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    ended = trainers(tmp_path, *SHORT)
    assert (ended.status, "cannot be written" in ended.text) == (2, True), ended.text


def test_settings_that_do_not_fit_the_data(trainers: Any, tmp_path: Path) -> None:
    ended = trainers(tmp_path, *SHORT, "--batch-size", 5000)
    assert (ended.status, "at most the" in ended.text) == (2, True), ended.text
    ended = trainers(tmp_path, *SHORT, "--optimizer", "sgd", "--clip", 0, "--lr", 1e30, "--schedule", "constant")
    assert (ended.status, "try a lower lr" in ended.text) == (2, True), ended.text


def test_pictures(trainers: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    ended = trainers(tmp_path / "run", *SHORT, "--plot", tmp_path / "a.png")
    assert ended.status == 0, ended.text
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    from ckpttool.render.curves import curves

    for name, head in (("b.html", b"<!doctype html>"), ("c.svg", b"<?xml")):
        curves(tmp_path / "run" / "log.csv", tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(head)
    ended = trainers(tmp_path / "other", *SHORT, "--plot", tmp_path / "d.doc")
    assert (ended.status, "ends in" in ended.text, (tmp_path / "other").exists()) == (2, True, False)


def test_tensorboard(trainers: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    ended = trainers(tmp_path, *SHORT, "--tensorboard")
    assert ended.status == 0, ended.text
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_the_metric_of_each_save_is_known(trainers: Any, tmp_path: Path) -> None:
    assert trainers(tmp_path, *SHORT, "--keep", 1, "--keep-best", 1).status == 0
    noted = json.loads((tmp_path / "metrics.json").read_text())
    choose = {"lower": min, "higher": max}[noted["better"]]
    best = choose(noted["metrics"], key=lambda step: float(noted["metrics"][step]))
    assert (tmp_path / f"step-{int(best):08d}.pth").exists()


def until(there: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end
        time.sleep(0.02)
