"""Commands say what the contract says, on the right stream, with the right exit code."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from click.testing import Result

from ckpttool import __version__

Run: TypeAlias = Callable[..., Result]


def test_version(run: Run) -> None:
    assert run("--version").stdout == f"ckpttool {__version__}\n"


@pytest.mark.parametrize("command", ["inspect", "verify", "explain", "git-setup", "textconv"])
def test_help_ends_with_the_exit_status(run: Run, command: str) -> None:
    help_ = run(command, "--help").stdout
    assert "\n  Exit status:\n    0  " in help_
    assert help_.rstrip().splitlines()[-1].startswith(("    2", "    Of several"))


def test_an_unknown_command_is_suggested(run: Run) -> None:
    result = run("inspct", "x")
    assert result.exit_code == 2
    assert "Did you mean 'inspect'?" in result.stderr


def test_inspect_shows_folded_names(run: Run, tiny: Path) -> None:
    result = run("inspect", tiny)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "layers.{0,1}.weight  float32  2      2 × 8 bytes" in result.stdout


def test_inspect_json_is_alone_on_stdout(run: Run, tiny: Path) -> None:
    data = json.loads(run("inspect", tiny, "--json").stdout)
    assert data["schema"] == "ckpttool.inspect/1"
    assert data == json.loads(run("inspect", tiny, "--format", "json").stdout)


def test_keys_go_to_a_file_or_to_stdout(run: Run, tiny: Path) -> None:
    assert run("inspect", tiny, "--keys", "keys.json").exit_code == 0
    written = Path("keys.json").read_text()
    assert run("inspect", tiny, "--keys", "-").stdout == written
    assert json.loads(written)["keys"][0] == {
        "key": "layers.0.weight",
        "path": ["layers.0.weight"],
        "dtype": "float32",
        "shape": [2],
    }


def test_stats_and_jobs(run: Run, tiny: Path) -> None:
    result = run("inspect", tiny, "--stats", "--jobs", "2", "--only", "*.1.*", "--json")
    (tensor,) = json.loads(result.stdout)["tensors"]
    assert (tensor["stats"]["nan"], tensor["stats"]["min"], tensor["stats"]["max"]) == (1, 2.0, 2.0)


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "absent.pt"],
        ["inspect", "empty"],
        ["inspect", "tiny.safetensors", "--only", "nothing*"],
        ["inspect", "tiny.safetensors", "--report", "report.pdf"],
        ["inspect", "tiny.safetensors", "--keys", "absent/keys.json"],
        ["explain", "CK999"],
        ["verify", "x", "--ignore-code", "CK999"],
        ["verify", "x", "--config", "absent.toml"],
    ],
    ids=" ".join,
)
def test_a_users_mistake_is_one_line_and_exit_2(run: Run, tiny: Path, arguments: list[str]) -> None:
    Path("empty").mkdir()
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_what_is_no_checkpoint_is_exit_1_and_points_to_verify(run: Run) -> None:
    Path("page.pth").write_text("<!DOCTYPE html><title>Quota exceeded</title>")
    result = run("inspect", "page.pth")
    assert result.exit_code == 1
    assert "not a checkpoint" in result.stdout
    assert "run: ckpttool verify page.pth" in result.stdout


@pytest.mark.parametrize("suffix", [".txt", ".json", ".md", ".html", ".xml", ".sarif"])
def test_reports_stand_beside_the_text(run: Run, verified: dict[str, Any], suffix: str) -> None:
    result = run("verify", "bad.pt", "--report", f"out{suffix}")
    assert result.exit_code == 1
    assert "CK102" in result.stdout
    assert Path(f"out{suffix}").read_text()
    assert [path.name for path in Path().iterdir()] == [f"out{suffix}"], "a temporary file was left"


def test_a_report_keeps_permissions_and_follows_links(run: Run, verified: dict[str, Any]) -> None:
    real = Path("real.json")
    real.write_text("old")
    real.chmod(0o640)
    Path("link.json").symlink_to(real)
    run("verify", "x", "--report", "link.json")
    assert Path("link.json").is_symlink()
    assert json.loads(real.read_text())["ok"] is True
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_a_report_that_cannot_be_written_leaves_the_result_and_the_old_file(
    run: Run, verified: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("out.json").write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = run("verify", "fine.pt", "--report", "out.json")
    assert result.exit_code == 2
    assert "fine.pt" in result.stdout
    assert result.stderr == "error: out.json – cannot be written: No space left on device\n"
    assert Path("out.json").read_text() == "old"
    assert [path.name for path in Path().iterdir()] == ["out.json"]


def test_quiet_leaves_only_the_exit_code(run: Run, verified: dict[str, Any]) -> None:
    result = run("verify", "-q", "bad.pt")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "")
    assert json.loads(run("verify", "-q", "--json", "bad.pt").stdout)["ok"] is False


def test_each_unreadable_target_has_its_line_and_the_others_run(run: Run, verified: dict[str, Any]) -> None:
    result = run("verify", "gone1.pt", "bad.pt", "gone2.pt")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "error: gone1.pt – no such file or directory",
        "error: gone2.pt – no such file or directory",
    ]
    assert "CK102" in result.stdout


def test_options_reach_the_verb(run: Run, verified: dict[str, Any]) -> None:
    run(
        *("verify", "a", "b", "--require", "exact", "--fail-on", "info", "--headers-only", "--jobs", "3"),
        *("--trust", "my.A", "--trust", "my.B", "--ignore-code", "truncated"),
    )
    assert verified == {
        "paths": ("a", "b"),
        "require": "exact",
        "fail_on": "info",
        "headers_only": True,
        "trust": ("my.A", "my.B"),
        "ignore": ("CK101",),
        "jobs": 3,
        "progress": None,
    }


def test_the_configuration_is_the_default_and_says_so(run: Run, verified: dict[str, Any]) -> None:
    Path("ckpttool.toml").write_text('require = "weights"\nfail-on = "warning"\ntrust = ["my.A"]\n')
    result = run("verify", "a", "--trust", "my.B", "--fail-on", "never")
    assert (verified["require"], verified["fail_on"], verified["trust"]) == ("weights", "never", ("my.A", "my.B"))
    assert result.stderr == f"note: {Path.cwd() / 'ckpttool.toml'} trusts my.A\n"
    result = run("verify", "a", "--no-config")
    assert (verified["require"], verified["fail_on"], verified["trust"]) == (None, "error", ())
    assert result.stderr == ""


def test_explain_lists_and_shows(run: Run) -> None:
    assert "CK101 truncated" in run("explain").stdout
    page = run("explain", "ck101").stdout
    assert run("explain", "truncated").stdout == page
    for part in ("What", "Why", "Cause", "Remedy"):
        assert f"\n{part}\n" in page
    assert "did you mean truncated?" in run("explain", "truncatd").stderr
