"""The page on CI is what it says: its YAML parses, its commands are ours, its tests and jobs run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from ckpttool.cli import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "prove-a-resume-in-ci.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def scripts() -> Iterator[str]:
    """What the jobs run, one shell script for each."""
    workflow, gitlab = (yaml.safe_load(text) for text in blocks("yaml"))
    yield from (step["run"] for step in workflow["jobs"]["exact"]["steps"] if "run" in step)
    yield from gitlab["resume"]["script"]


def ours() -> list[list[str]]:
    """The words of every command of ours."""
    import shlex

    lines = [line.replace("\\\n", " ") for line in scripts()]
    return [shlex.split(line)[1:] for text in lines for line in text.splitlines() if line.startswith("ckpttool ")]


def test_the_workflow_has_what_one_needs() -> None:
    workflow, gitlab = (yaml.safe_load(text) for text in blocks("yaml"))
    # YAML 1.1 reads a bare `on` as true; GitHub does not.
    assert set(workflow) == {"name", True, "permissions", "jobs"}
    assert workflow["permissions"] == {"contents": "read"}
    assert all({"uses", "run"} & set(step) for step in workflow["jobs"]["exact"]["steps"])
    assert gitlab["resume"]["artifacts"]["reports"]["junit"] == "resume.xml"


def test_the_commands_are_ours() -> None:
    found = ours()
    assert len(found) == 2
    for words in found:
        parse(main, words)


def parse(command: click.Command, words: list[str], parent: click.Context | None = None) -> None:
    """Let click parse a command line, and run nothing. Raises ``UsageError`` for options that are not there."""
    context = command.make_context(command.name, list(words), parent)
    if isinstance(command, click.Group):
        _, below, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert below is not None
        parse(below, rest, context)


def test_a_wrong_command_would_be_noticed() -> None:
    with pytest.raises(click.UsageError):
        parse(main, ["determinism", "check", "--steps", "none", "--", "true"])


@pytest.mark.slow
def test_the_example_passes_and_fails_as_it_says(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    example, machine = blocks("python")
    (tmp_path / "test_example.py").write_text(example)
    broken = example.replace('        self.optimizer.load_state_dict(state["optimizer"])\n', "")
    (tmp_path / "test_broken.py").write_text(broken)
    (tmp_path / "test_machine.py").write_text(example + machine + "Machine.TestCase.settings = SMALL\n")
    small = "import hypothesis\nSMALL = hypothesis.settings(max_examples=3, stateful_step_count=8, deadline=None)\n"
    (tmp_path / "test_machine.py").write_text(small + (tmp_path / "test_machine.py").read_text())
    given = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "ckpttool.pytest_plugin",
        "-p",
        "no:cacheprovider",
        str(tmp_path),
    ]
    done = subprocess.run(words, env=given, cwd=tmp_path, capture_output=True, text=True, timeout=250, check=False)
    assert "1 failed, 3 passed" in done.stdout, done.stdout
    (told,) = blocks("text")
    for line in told.splitlines():
        assert " ".join(line.split()) in " ".join(done.stdout.replace("\nE ", " ").split()), line


@pytest.mark.slow
def test_the_jobs_run(tmp_path: Path) -> None:
    """Both jobs' commands in a shell, as the runners start them, on a script that resumes by itself."""
    pytest.importorskip("torch", reason="torch is not installed")
    source = (ROOT / "tests" / "determinism" / "script.py").read_text()
    (tmp_path / "train.py").write_text(source.replace("sys.argv[1], sys.argv[2]", 'sys.argv[2], "no-optimizer"'))
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, words in (("ckpttool", f"{sys.executable} -m ckpttool"), ("python", sys.executable)):
        (tools / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (tools / name).chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    given = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = next(text for text in scripts() if text.startswith("ckpttool") and "github" in text)
    script = script.replace("--steps 40 --cuts 6 --kills 4", "--steps 10 --cuts 1 --kills 0 --no-power")
    shell = [shutil.which("bash") or "sh", "-e", "-c", script]
    done: Any = subprocess.run(shell, env=given, cwd=tmp_path, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.startswith("::error file=train.py,title=determinism optimizer-lost::"), done.stdout
    for name in ("resume.md", "resume.html", "resume.xml"):
        assert (tmp_path / name).stat().st_size > 500
