"""ckpttool migrate: options, streams, exit codes, and what is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from click.testing import Result

from ckpttool.formats import describe
from ckpttool.testing.plain import tensor
from ckpttool.testing.writers import legacy_file, safetensors_file, torch_file

Run: TypeAlias = Callable[..., Result]
FIXTURES = Path(__file__).parents[2] / "fixtures"
TRAINING, DDP = FIXTURES / "training.pth", FIXTURES / "ddp.pth"

NET = "- rename: '{i}.{name}'\n  to: 'net.{i}.{name}'\n"
SWAP = "- rename: 'a'\n  to: 'b'\n- rename: 'b'\n  to: 'a'\n"
TURN = "- transpose: 'a'\n"


def rules(folder: Path, text: str, name: str = "rules.yaml") -> Path:
    path = folder / name
    path.write_text(f"ckpttool: 1\nabout: a test\nrules:\n{text}")
    return path


def small(*, shape: tuple[int, ...] = (2, 2)) -> dict[str, Any]:
    data = b"".join(bytes([i, 0, 0, 64]) for i in range(shape[0] * shape[1]))
    return {"a": tensor(shape, data), "b": tensor(shape, data[::-1])}


def keys(path: Path) -> list[str]:
    return [entry.key for entry, _ in describe(path).tensors()]


def data(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_help_lists_the_options_and_exit_statuses(run: Run) -> None:
    text = run("migrate", "--help").stdout
    for option in (
        "--output --rules --preset --to --to-model --set --reverse --dry-run --in-place --backup --no-backup "
        "--verify --as --under --section --assume-order --force --list-presets --format --json --report"
    ).split():
        assert option in text
    assert "Exit status:" in text


def test_everything_moves_and_json_says_what(run: Run, tmp_path: Path) -> None:
    result = run("migrate", TRAINING, "-o", "new.pth", "--rules", rules(tmp_path, NET), "--json")
    found = data(result)
    assert (result.exit_code, found["schema"], found["ok"], found["written"]) == (
        0,
        "ckpttool.migrate/1",
        True,
        "new.pth",
    )
    assert {"op", "from", "to", "reason", "lossy"} == set(found["plan"][0])
    assert found["plan"][0]["from"] == ["model.0.weight"]
    assert found["plan"][0]["to"] == ["model.net.0.weight"]
    assert "rules.yaml:4" in found["plan"][0]["reason"]
    assert found["rules"] == [
        {"rule": found["rules"][0]["rule"], "where": str(tmp_path / "rules.yaml") + ":4", "hits": 9}
    ]
    assert (found["unmatched"], found["lossless"]) == ([], True)
    assert keys(tmp_path / "new.pth")[0] == "model.net.0.weight"
    assert "ema.state_dict.net.0.weight" in keys(tmp_path / "new.pth")
    assert run("verify", "new.pth", "--require", "exact").exit_code == 0


def test_a_dry_run_writes_nothing_and_says_the_same(run: Run, tmp_path: Path) -> None:
    file = rules(tmp_path, NET)
    dry = data(run("migrate", TRAINING, "--rules", file, "--dry-run", "--json"))
    assert dry["written"] is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rules.yaml"]
    real = data(run("migrate", TRAINING, "-o", "n.pth", "--rules", file, "--json"))
    assert (dry["plan"], dry["rules"], dry["unmatched"]) == (real["plan"], real["rules"], real["unmatched"])


def test_there_and_back_is_the_same(run: Run, tmp_path: Path) -> None:
    file = rules(tmp_path, NET)
    assert run("migrate", TRAINING, "-o", "n.pth", "--rules", file).exit_code == 0
    assert run("migrate", "n.pth", "-o", "b.pth", "--rules", file, "--reverse").exit_code == 0
    assert run("diff", TRAINING, "b.pth").exit_code == 0
    assert "migrations" not in describe(tmp_path / "b.pth").metadata


def test_a_rerun_says_already_migrated_and_copies(run: Run, tmp_path: Path) -> None:
    file = rules(tmp_path, NET)
    run("migrate", TRAINING, "-o", "n.pth", "--rules", file)
    again = run("migrate", "n.pth", "-o", "again.pth", "--rules", file)
    assert again.exit_code == 0
    assert "already migrated" in " ".join(again.stdout.split())
    assert (tmp_path / "again.pth").read_bytes() == (tmp_path / "n.pth").read_bytes()
    before = (tmp_path / "n.pth").stat()
    assert data(run("migrate", "n.pth", "--in-place", "--rules", file, "--json"))["written"] is None
    assert (tmp_path / "n.pth").stat() == before


@pytest.mark.parametrize("text", [SWAP, TURN])
def test_rules_that_would_match_again_are_not_carried_out_twice(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "a.pth").write_bytes(torch_file(small()))
    file = rules(tmp_path, text)
    assert run("migrate", "a.pth", "-o", "b.pth", "--rules", file).exit_code == 0
    second = run("migrate", "b.pth", "-o", "c.pth", "--rules", file)
    assert second.exit_code == 2
    assert "already migrated" in second.stderr
    assert not (tmp_path / "c.pth").exists()
    assert run("migrate", "b.pth", "-o", "c.pth", "--rules", file, "--reverse").exit_code == 0
    assert run("diff", "a.pth", "c.pth").exit_code == 0
    assert run("migrate", "c.pth", "-o", "d.pth", "--rules", file).exit_code == 0


def test_where_nothing_can_be_recorded_such_rules_are_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "old.pth").write_bytes(legacy_file(small()))
    result = run("migrate", "old.pth", "-o", "new.pth", "--rules", rules(tmp_path, SWAP))
    assert result.exit_code == 2
    assert "no place to record" in result.stderr
    assert run("migrate", "old.pth", "-o", "new.pth", "--rules", "rules.yaml", "--force").exit_code == 0


def test_safetensors_remember_too(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(safetensors_file(small()))
    file = rules(tmp_path, SWAP)
    assert run("migrate", "a.safetensors", "-o", "b.safetensors", "--rules", file).exit_code == 0
    assert "already migrated" in run("migrate", "b.safetensors", "-o", "c.safetensors", "--rules", file).stderr
    assert run("migrate", "b.safetensors", "-o", "c.safetensors", "--rules", file, "--reverse").exit_code == 0
    assert (tmp_path / "c.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()


def test_in_place_keeps_the_old_one(run: Run, tmp_path: Path) -> None:
    before = torch_file(small())
    (tmp_path / "a.pth").write_bytes(before)
    file = rules(tmp_path, "- rename: a\n  to: c\n")
    assert run("migrate", "a.pth", "--in-place", "--rules", file).exit_code == 0
    assert (tmp_path / "a.pth.bak").read_bytes() == before
    assert keys(tmp_path / "a.pth") == ["c", "b"]


def test_a_target_checks_the_result_and_gives_its_order(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(torch_file(small()))
    wanted = {"b": small()["b"], "c": small()["a"]}
    (tmp_path / "to.pth").write_bytes(torch_file(wanted))
    file = rules(tmp_path, "- rename: a\n  to: c\n")
    assert run("migrate", "a.pth", "-o", "n.pth", "--rules", file, "--to", "to.pth").exit_code == 0
    assert keys(tmp_path / "n.pth") == ["b", "c"]
    bad = run("migrate", "a.pth", "-o", "m.pth", "--rules", rules(tmp_path, "- rename: a\n  to: d\n"), "--to", "to.pth")
    assert bad.exit_code == 2
    assert "nothing makes 'c'" in bad.stderr
    assert "the target has no 'd'" in bad.stderr
    assert not (tmp_path / "m.pth").exists()


def test_a_target_alone_is_enough_where_the_way_is_certain(run: Run, tmp_path: Path) -> None:
    shapes = {"encoder.fc.weight": (3, 4), "encoder.fc.bias": (3, 1), "head": (7, 2)}
    value = {k: tensor(s, bytes(range(4 * s[0] * s[1]))) for k, s in shapes.items()}
    (tmp_path / "a.pth").write_bytes(torch_file(value))
    (tmp_path / "to.pth").write_bytes(torch_file({f"model.{k}": v for k, v in value.items()}))
    assert run("migrate", "a.pth", "-o", "n.pth", "--to", "to.pth").exit_code == 0
    assert keys(tmp_path / "n.pth") == [f"model.{k}" for k in shapes]
    run("inspect", "to.pth", "--keys", "keys.json")
    assert run("migrate", "a.pth", "-o", "m.pth", "--to", "keys.json").exit_code == 0
    (tmp_path / "more.pth").write_bytes(torch_file({**value, "extra": tensor((9, 9), bytes(324))}))
    unsure = run("migrate", "a.pth", "-o", "x.pth", "--to", "more.pth")
    assert unsure.exit_code == 2
    assert "nothing leads to 'extra'" in unsure.stderr
    assert "ckpttool infer" in unsure.stderr


def test_what_is_like_its_target_already_is_said_to_be(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(torch_file(small()))
    text = " ".join(run("migrate", "a.pth", "--to", "a.pth", "--dry-run").stdout.split())
    assert "every key and shape is that of a.pth already" in text
    assert "no rule matches" not in text


def test_rules_without_a_way_back_say_why_before_they_are_needed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(torch_file(small()))
    file = rules(tmp_path, "- add: 'c'\n  zeros_like: 'a'\n  when: {missing: 'd'}\n")
    notes = data(run("migrate", "a.pth", "--rules", file, "--dry-run", "--json"))["notes"]
    assert any(note.startswith("no way back: ") and "reverse_when" in note for note in notes)
    assert run("migrate", "a.pth", "--rules", file, "--dry-run", "--reverse").exit_code == 2


def test_under_names_another_dict(run: Run, tmp_path: Path) -> None:
    value = {"g": small(), "d": small(), "epoch": 1}
    (tmp_path / "a.pth").write_bytes(torch_file(value))
    file = rules(tmp_path, "- rename: a\n  to: c\n")
    assert run("migrate", "a.pth", "-o", "n.pth", "--rules", file, "--under", "d").exit_code == 0
    assert keys(tmp_path / "n.pth") == ["g.a", "g.b", "d.c", "d.b"]
    assert run("migrate", "a.pth", "-o", "m.pth", "--rules", file, "--under", "x").exit_code == 2


def test_presets_are_listed_and_used(run: Run) -> None:
    listed = run("migrate", "--list-presets")
    assert listed.exit_code == 0
    assert "strip-wrappers" in listed.stdout
    result = run("migrate", DDP, "-o", "n.pth", "--preset", "strip-wrappers", "--json")
    assert result.exit_code == 0
    assert all(key.startswith("module.") is False for step in data(result)["plan"] for key in step["to"])
    unknown = run("migrate", DDP, "-o", "m.pth", "--preset", "strip-wraper")
    assert unknown.exit_code == 2
    assert "strip-wrappers" in unknown.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [TRAINING, "-o", "n.pth"],
        [TRAINING, "--rules", "rules.yaml"],
        [TRAINING, "-o", "n.pth", "--in-place", "--rules", "rules.yaml"],
        [TRAINING, "-o", "n.pth", "--rules", "rules.yaml", "--preset", "strip-wrappers"],
        [TRAINING, "-o", "n.pth", "--rules", "gone.yaml"],
        [TRAINING, "-o", "n.pth", "--rules", "rules.yaml", "--set", "x"],
        [FIXTURES / "page.html.pth", "-o", "n.pth", "--rules", "rules.yaml"],
        [FIXTURES / "empty.pth", "-o", "n.pth", "--rules", "rules.yaml"],
        ["gone.pth", "-o", "n.pth", "--rules", "rules.yaml"],
    ],
)
def test_what_cannot_be_done_is_2_and_one_line(run: Run, tmp_path: Path, arguments: list[Any]) -> None:
    rules(tmp_path, NET)
    result = run("migrate", *arguments)
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert "error:" in result.stderr
    assert not (tmp_path / "n.pth").exists()


def test_an_existing_file_is_replaced_with_force_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "n.pth").write_bytes(b"mine")
    file = rules(tmp_path, NET)
    assert run("migrate", TRAINING, "-o", "n.pth", "--rules", file).exit_code == 2
    assert (tmp_path / "n.pth").read_bytes() == b"mine"
    assert run("migrate", TRAINING, "-o", "n.pth", "--rules", file, "--force").exit_code == 0


def test_format_is_what_is_asked_for(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(torch_file(small()))
    file = rules(tmp_path, "- rename: a\n  to: c\n")
    assert run("migrate", "a.pth", "-o", "n.safetensors", "--rules", file).exit_code == 0
    assert describe(tmp_path / "n.safetensors").format == "safetensors"
    assert run("migrate", "a.pth", "-o", "n.pth", "--as", "torch-legacy", "--rules", file).exit_code == 0
    assert describe(tmp_path / "n.pth").format == "torch-legacy"


def test_reports(run: Run, tmp_path: Path) -> None:
    rules(tmp_path, NET)
    result = run(
        "migrate", TRAINING, "--dry-run", "--rules", "rules.yaml", "--report", "r.html", "--format", "markdown"
    )
    assert result.exit_code == 0
    assert "model.net." in result.stdout
    assert "<html" in (tmp_path / "r.html").read_text()
