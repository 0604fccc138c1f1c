"""``convert`` as a user types it: names, exit codes, JSON, one line for what cannot be done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from ckpttool.formats import describe
from ckpttool.testing.plain import Call, Global
from ckpttool.testing.samples import training_state, weights
from ckpttool.testing.writers import legacy_file, torch_file

ROOT = Path(__file__).parents[2]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "run.pt"
    path.write_bytes(torch_file(training_state()))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refused(result: Result, why: str) -> None:
    """Exit 2 and one line that says why."""
    assert result.exit_code == 2
    assert why in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_what_is_written_and_what_is_not(run: Any, source: Path) -> None:
    result = run("convert", source, "-o", "out.safetensors", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (found["schema"], found["ok"], found["exit_code"]) == ("ckpttool.convert/1", True, 0)
    assert (found["written"], found["format"], found["source_format"]) == (
        "out.safetensors", "safetensors", "torch-zip",
    )  # fmt: skip
    assert found["bytes"] == Path("out.safetensors").stat().st_size == found["copied"] + found["computed"]
    keys = {one["key"] for one in found["not_carried"] if one["kind"] == "content"}
    tensors = {entry.key for entry, _ in describe(source).tensors()}
    assert keys
    assert not keys & tensors
    assert {entry.key for entry in describe(source).entries()} == tensors | keys


def test_for_people(run: Any, source: Path) -> None:
    result = run("convert", source, "-o", "out.safetensors")
    assert "written, without" in result.stdout
    assert "scaler." in result.stdout
    assert "not compared; --verify does that" in result.stdout
    verified = run("convert", source, "-o", "b.safetensors", "--verify").stdout
    assert "compared with the source" in verified


def test_a_section_becomes_a_checkpoint(run: Any, source: Path) -> None:
    run("convert", source, "-o", "w.safetensors", "--section", "weights")
    assert sorted(e.key for e in describe("w.safetensors").entries()) == sorted(weights())
    run("convert", source, "-o", "two.pt", "--section", "weights", "--section", "optimizer")
    assert {e.path[0] for e in describe("two.pt").entries()} == {"model", "optimizer"}
    refused(run("convert", "w.safetensors", "-o", "x.pt", "--section", "ema"), "has no section 'ema'; it has weights")


@pytest.mark.parametrize(
    ("target", "kind", "files"),
    [
        ("a.pth", "torch", ["a.pth"]),
        ("a.safetensors", "safetensors", ["a.safetensors"]),
        ("shards", "sharded", ["model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                               "model-00003-of-00003.safetensors", "model.safetensors.index.json"]),
    ],
)  # fmt: skip
def test_the_name_says_the_format(run: Any, source: Path, target: str, kind: str, files: list[str]) -> None:
    result = run("convert", source, "-o", target, "--section", "weights", "--max-shard-size", "9KB", "--json")
    found = json.loads(result.stdout)
    assert found["format"] == kind
    assert [Path(name).name for name in found["files"]] == files


def test_a_legacy_file_becomes_an_archive(run: Any, tmp_path: Path) -> None:
    (tmp_path / "old.pt").write_bytes(legacy_file(weights()))
    run("convert", "old.pt", "-o", "new.pt")
    assert describe("new.pt").format == "torch-zip"
    run("convert", "new.pt", "-o", "again.pt", "--as", "torch-legacy")
    assert describe("again.pt").format == "torch-legacy"


def test_dry_run_writes_nothing(run: Any, source: Path, tmp_path: Path) -> None:
    found = json.loads(run("convert", source, "-o", "out.safetensors", "--dry-run", "--json").stdout)
    assert found["written"] is None
    assert found["not_carried"]
    assert names(tmp_path) == ["run.pt"]


def test_strict_refuses_to_leave_content_behind(run: Any, source: Path, tmp_path: Path) -> None:
    result = run("convert", source, "-o", "out.safetensors", "--strict")
    assert result.exit_code == 1
    assert "nothing was written" in result.stdout
    assert names(tmp_path) == ["run.pt"]
    assert run("convert", source, "-o", "w.safetensors", "--strict", "--section", "weights").exit_code == 0
    assert run("convert", source, "-o", "copy.pt", "--strict").exit_code == 0


def test_existing_files_are_replaced_only_when_asked(run: Any, source: Path, tmp_path: Path) -> None:
    (tmp_path / "out.pt").write_bytes(b"precious")
    refused(run("convert", source, "-o", "out.pt"), "out.pt – exists already; --force replaces it")
    assert (tmp_path / "out.pt").read_bytes() == b"precious"
    assert run("convert", source, "-o", "out.pt", "--force", "--backup").exit_code == 0
    assert (tmp_path / "out.pt.bak").read_bytes() == b"precious"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    refused(run("convert", source, "-o", "full", "--force"), "a folder is never replaced")


def test_in_place(run: Any, source: Path, tmp_path: Path) -> None:
    before = source.read_bytes()
    refused(run("convert", source, "-o", source), "exists already")
    found = json.loads(run("convert", source, "--in-place", "--json").stdout)
    assert found["backup"] == f"{source}.bak"
    assert Path(found["backup"]).read_bytes() == before
    assert run("convert", source, "--in-place", "--no-backup").exit_code == 0
    assert names(tmp_path) == ["run.pt", "run.pt.bak"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["run.pt"], "-o DST, or in place with --in-place"),
        (["run.pt", "-o", "a.pt", "--in-place"], "give one of the two"),
        (["run.pt", "-o", "a.xyz"], "the name says no format"),
        (["run.pt", "-o", "gone/a.pt"], "does not exist; make it first"),
        (["run.pt", "-o", "out", "--max-shard-size", "big"], "'big' is no size of a shard"),
        (["gone.pt", "-o", "a.pt"], "gone.pt – no such file or directory"),
        (["notes.md", "-o", "a.pt"], "not a checkpoint"),
        (["torn.pt", "-o", "a.pt"], "run: ckpttool verify torn.pt"),
    ],
)
def test_what_cannot_be_done(run: Any, source: Path, tmp_path: Path, arguments: list[str], why: str) -> None:
    (tmp_path / "notes.md").write_text("# Notes\n" * 100)
    (tmp_path / "torn.pt").write_bytes(source.read_bytes()[:-3000])
    before = names(tmp_path)
    refused(run("convert", *arguments), why)
    assert names(tmp_path) == before


def test_an_unsafe_source_is_converted_and_named(run: Any, tmp_path: Path) -> None:
    hostile = {"w": weights()["out.weight"], "x": Call(Global("os", "system"), ("touch pwned",))}
    (tmp_path / "x.pt").write_bytes(torch_file(hostile))
    found = json.loads(run("convert", "x.pt", "-o", "x.safetensors", "--json").stdout)
    assert "os.system" in found["notes"][0]
    assert {one["key"] for one in found["not_carried"] if one["kind"] == "content"} >= {"x"}
    assert names(tmp_path) == ["x.pt", "x.safetensors"]


def test_names_with_newlines(run: Any, source: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a\nb\x1b[31m.pt"
    source.rename(odd)
    result = run("convert", odd, "-o", "c\nd.safetensors")
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    assert "c\\nd.safetensors" in result.stdout
    refused(run("convert", odd, "-o", "c\nd.safetensors"), "c\\nd.safetensors – exists already")


def test_a_reader_that_has_gone(source: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = f"{sys.executable} -m ckpttool convert run.pt -o out.safetensors --json | head -1"
    done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert done.stdout == b"{\n"
    assert done.stderr == b""
    assert describe(tmp_path / "out.safetensors").damage == ()


SLOW = """
import sys, time
from ckpttool.writing.streams import Sink
original = Sink.write
def write(self, data):
    original(self, data)
    print("writing", file=sys.stderr, flush=True)
    time.sleep(30)
Sink.write = write
from ckpttool.cli import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
@pytest.mark.parametrize("target", ["out.pt", "shards"])
def test_interrupted_while_writing(
    source: Path, tmp_path: Path, number: signal.Signals, status: int, target: str
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SLOW, "convert", "run.pt", "-o", target]
    child = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
    assert child.stderr is not None
    child.stderr.readline()
    assert len(names(tmp_path)) == 2
    child.send_signal(number)
    started = time.monotonic()
    _, errors = child.communicate()
    assert time.monotonic() - started < 20
    assert child.returncode == status
    assert errors.decode() == ("interrupted\n" if number == signal.SIGINT else "")
    assert names(tmp_path) == ["run.pt"]


def test_the_public_face(source: Path, tmp_path: Path) -> None:
    import ckpttool

    report = ckpttool.convert(source, tmp_path / "a.safetensors", sections=["weights"], strict=True)
    assert report.exit_code == ckpttool.ExitCode.OK
    with pytest.raises(ckpttool.WriteFailed):
        ckpttool.convert(source, tmp_path / "a.safetensors")
