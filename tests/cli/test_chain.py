"""ckpttool chain, and migrate --chain: one write from version to version, records, exit codes, messages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from click.testing import Result

from ckpttool.formats import describe
from ckpttool.model import Value
from ckpttool.testing.plain import tensor
from ckpttool.testing.writers import legacy_file, safetensors_file, torch_file

Run: TypeAlias = Callable[..., Result]
FIXTURES = Path(__file__).parents[2] / "fixtures"
TRAINING = FIXTURES / "training.pth"

NET = "- rename: '{i}.{name}'\n  to: 'net.{i}.{name}'\n"
TURN = "- transpose: 'net.0.weight'\n"
CODE = '''
import ckpttool

@ckpttool.migration("3", "4")
def up(keys):
    """Twice as large."""
    for name in keys.find("net.*.weight"):
        keys[name] = keys[name].map(lambda w: w * 2)

@up.down
def down(keys):
    for name in keys.find("net.*.weight"):
        keys[name] = keys[name].map(lambda w: w / 2)
'''


def rules(from_: str, to: str, text: str) -> str:
    return f"ckpttool: 1\nabout: from {from_}\nfrom: '{from_}'\nto: '{to}'\nrules:\n{text}"


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """Three steps: a rename, a transpose, a computation in Python."""
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "01-net.yaml").write_text(rules("1", "2", NET))
    (folder / "02-turn.yaml").write_text(rules("2", "3", TURN))
    (folder / "03-double.py").write_text(CODE)
    (folder / "chain.yaml").write_text("unstamped: 1\n")
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Path]:
    """A file with two small matrices, and a chain for it whose steps are given."""

    def small(*steps: str, settings: str = "", values: dict[str, Any] | None = None) -> Path:
        folder = tmp_path / "s"
        folder.mkdir(exist_ok=True)
        for number, text in enumerate(steps, 1):
            suffix = "py" if "def " in text else "yaml"
            body = text if suffix == "py" else rules(str(number), str(number + 1), text)
            (folder / f"{number:02}.{suffix}").write_text(body)
        (folder / "chain.yaml").write_text(settings or "unstamped: 1\n")
        (tmp_path / "a.pth").write_bytes(torch_file({"model": state(), **(values or {})}))
        return folder

    return small


def state() -> dict[str, Any]:
    data = bytes(b for i in range(6) for b in (0, 0, i, 64))
    return {"a.weight": tensor((2, 3), data), "b.weight": tensor((2, 3), data[::-1])}


def keys(path: Path) -> list[str]:
    return [entry.key for entry, _ in describe(path).tensors()]


def data(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert all(word in result.stderr for word in words), result.stderr


# --- there and back ------------------------------------------------------------------------------------------


def test_all_missing_steps_in_one_write(run: Run, chain: Path, tmp_path: Path) -> None:
    found = data(run("migrate", TRAINING, "--chain", "m", "-o", "n.pth", "--json"))
    assert (found["ok"], found["written"]) == (True, "n.pth")
    assert (found["chain"]["from"], found["chain"]["to"]) == ("1", "4")
    assert [(s["step"], s["from"], s["to"], s["back"]) for s in found["chain"]["steps"]] == [
        ("01-net.yaml", "1", "2", False),
        ("02-turn.yaml", "2", "3", False),
        ("03-double.py", "3", "4", False),
    ]
    assert "model.net.0.weight" in keys(tmp_path / "n.pth")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m", "n.pth"]
    assert not list(chain.glob("__pycache__"))
    assert run("verify", "n.pth", "--require", "resumable").exit_code == 0


def test_step_by_step_is_the_same(run: Run, chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    run("migrate", TRAINING, "--chain", "m", "-o", "n.pth")
    shutil.copy(TRAINING, "0.pth")
    for number in range(3):
        source, output = f"{number}.pth", f"{number + 1}.pth"
        done = run("migrate", source, "--chain", "m", "--to-version", str(number + 2), "-o", output)
        assert done.exit_code == 0, done.stderr
    assert run("diff", "n.pth", "3.pth").exit_code == 0
    one, other = (run("chain", "history", name, "--json") for name in ("n.pth", "3.pth"))
    assert data(one)["migrations"] == data(other)["migrations"]
    assert data(one)["migrations"][0]["when"] == "2023-11-14T22:13:20+00:00"


def test_there_and_back_is_the_same(run: Run, chain: Path, tmp_path: Path) -> None:
    assert run("migrate", TRAINING, "--chain", "m", "--to-version", "3", "-o", "n.pth").exit_code == 0
    found = data(run("migrate", "n.pth", "--chain", "m", "--to-version", "1", "-o", "b.pth", "--json"))
    assert [(s["from"], s["to"], s["back"]) for s in found["chain"]["steps"]] == [("3", "2", True), ("2", "1", True)]
    assert found["lossless"] is True
    assert run("diff", TRAINING, "b.pth").exit_code == 0
    assert not describe(tmp_path / "b.pth").metadata.get("migrations")


def test_already_there_changes_nothing(run: Run, chain: Path, tmp_path: Path) -> None:
    run("migrate", TRAINING, "--chain", "m", "-o", "n.pth")
    before = (tmp_path / "n.pth").stat()
    result = run("migrate", "n.pth", "--chain", "m", "--in-place")
    assert result.exit_code == 0
    assert "already at version '4'" in result.stdout
    assert (tmp_path / "n.pth").stat() == before
    assert run("migrate", "n.pth", "--chain", "m", "-o", "copy.pth").exit_code == 0
    assert (tmp_path / "copy.pth").read_bytes() == (tmp_path / "n.pth").read_bytes()


def test_in_place_keeps_the_original_until_told(run: Run, chain: Path, tmp_path: Path) -> None:
    shutil.copy(TRAINING, tmp_path / "t.pth")
    assert run("migrate", "t.pth", "--chain", "m", "--in-place", "--to-version", "2").exit_code == 0
    assert (tmp_path / "t.pth.bak").read_bytes() == TRAINING.read_bytes()
    (tmp_path / "t.pth.bak").unlink()
    assert run("migrate", "t.pth", "--chain", "m", "--in-place", "--no-backup").exit_code == 0
    assert not (tmp_path / "t.pth.bak").exists()


def test_a_dry_run_writes_nothing(run: Run, chain: Path, tmp_path: Path) -> None:
    found = data(run("migrate", TRAINING, "--chain", "m", "--dry-run", "--json"))
    assert found["written"] is None
    assert len(found["chain"]["steps"]) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_step_that_finds_nothing_still_counts(run: Run, small: Callable[..., Path]) -> None:
    small("- rename: 'nothing'\n  to: 'else'\n  optional: true\n")
    assert run("migrate", "a.pth", "--chain", "s", "-o", "n.pth").exit_code == 0
    assert data(run("chain", "status", "n.pth", "--chain", "s", "--json"))["targets"][0]["version"] == "2"


def test_steps_for_another_checkpoint_are_refused(run: Run, small: Callable[..., Path]) -> None:
    small("- rename: 'c.weight'\n  to: 'd.weight'\n", "- rename: 'e.weight'\n  to: 'f.weight'\n")
    result = run("migrate", "a.pth", "--chain", "s", "-o", "n.pth")
    refused(result, "from version '1' to '3' are for another", "01.yaml:6", "nearest: ", "--force")
    assert run("migrate", "a.pth", "--chain", "s", "-o", "n.pth", "--force").exit_code == 0
    # one step that finds its keys says that the chain is the right one
    small("- rename: 'a.weight'\n  to: 'd.weight'\n", "- rename: 'e.weight'\n  to: 'f.weight'\n")
    assert run("migrate", "a.pth", "--chain", "s", "-o", "m.pth").exit_code == 0


def test_safetensors_keep_the_record(run: Run, small: Callable[..., Path], tmp_path: Path) -> None:
    small("- rename: '{a|b}.weight'\n  to: 'net.{a|b}.weight'\n", "- transpose: 'net.a.weight'\n")
    (tmp_path / "a.safetensors").write_bytes(safetensors_file(state()))
    assert run("migrate", "a.safetensors", "--chain", "s", "-o", "n.safetensors").exit_code == 0
    assert run("chain", "check", "n.safetensors", "--chain", "s").exit_code == 0
    back = run("migrate", "n.safetensors", "--chain", "s", "--to-version", "1", "-o", "b.safetensors")
    assert back.exit_code == 0
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()


# --- where it stands -----------------------------------------------------------------------------------------


def test_without_a_version_it_is_asked_for(run: Run, chain: Path) -> None:
    (chain / "chain.yaml").unlink()
    refused(run("migrate", TRAINING, "--chain", "m", "-o", "n.pth"), "--from-version", "m/chain.yaml")
    assert run("migrate", TRAINING, "--chain", "m", "-o", "n.pth", "--from-version", "1").exit_code == 0
    disagreeing = run("migrate", "n.pth", "--chain", "m", "-o", "x.pth", "--from-version", "2")
    refused(disagreeing, "its note of migrations says version '4'", "--from-version '2'")
    refused(run("migrate", TRAINING, "--chain", "m", "-o", "x.pth", "--from-version", "9"), "no version '9'")


def test_the_checkpoints_own_value_tells_and_moves_along(run: Run, small: Callable[..., Path], tmp_path: Path) -> None:
    settings = "version: {key: meta.arch}\n"
    small("- transpose: 'a.weight'\n", "- transpose: 'b.weight'\n", settings=settings, values={"meta": {"arch": 1}})
    assert run("migrate", "a.pth", "--chain", "s", "-o", "n.pth").exit_code == 0
    found = {e.key: e.node.value for e in describe(tmp_path / "n.pth").entries() if isinstance(e.node, Value)}
    assert found == {"meta.arch": 3}
    assert run("migrate", "n.pth", "--chain", "s", "-o", "old.pth", "--as", "torch-legacy").exit_code == 0
    legacy = run("migrate", "old.pth", "--chain", "s", "-o", "older.pth", "--to-version", "2")
    assert legacy.exit_code == 0
    assert data(run("chain", "status", "older.pth", "--chain", "s", "--json"))["targets"][0]["version"] == "2"


def test_records_that_disagree_are_not_guessed_between(run: Run, small: Callable[..., Path], tmp_path: Path) -> None:
    folder = small("- transpose: 'a.weight'\n", values={"arch": 1})
    assert run("migrate", "a.pth", "--chain", "s", "-o", "n.pth").exit_code == 0
    (folder / "chain.yaml").write_text("version: arch\n")
    refused(run("migrate", "n.pth", "--chain", "s", "-o", "x.pth"), "'1'", "'2'", "--from-version")
    assert run("chain", "check", "n.pth", "--chain", "s").exit_code == 1
    assert run("migrate", "n.pth", "--chain", "s", "-o", "x.pth", "--from-version", "2").exit_code == 0


def test_a_format_that_keeps_no_record_is_refused(run: Run, small: Callable[..., Path], tmp_path: Path) -> None:
    small("- transpose: 'a.weight'\n")
    (tmp_path / "old.pth").write_bytes(legacy_file(state()))
    refused(run("migrate", "old.pth", "--chain", "s", "-o", "n.pth"), "no place to record version '2'", "--as torch")
    assert not (tmp_path / "n.pth").exists()
    assert run("migrate", "old.pth", "--chain", "s", "-o", "n.pth", "--as", "torch").exit_code == 0
    assert (
        run("migrate", "n.pth", "--chain", "s", "-o", "o.pth", "--as", "torch-legacy", "--to-version", "1").exit_code
        == 0
    )


def test_status_and_check_list_each_checkpoint_of_a_run(run: Run, chain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(TRAINING, folder / "step-1.pth")
    run("migrate", TRAINING, "--chain", "m", "-o", "run/step-2.pth")
    result = run("chain", "status", "run", "--chain", "m", "--json")
    found = data(result)
    assert (result.exit_code, found["schema"], found["head"], found["versions"]) == (
        0,
        "ckpttool.chain-status/1",
        "4",
        ["1", "2", "3", "4"],
    )
    assert [(Path(t["path"]).name, t["state"], len(t["missing"])) for t in found["targets"]] == [
        ("step-1.pth", "behind", 3),
        ("step-2.pth", "current", 0),
    ]
    check = run("chain", "check", "run", "--chain", "m")
    assert check.exit_code == 1
    assert "3 steps behind" in check.stdout
    assert "ckpttool migrate run/step-1.pth --chain m" in " ".join(check.stdout.split())
    assert run("chain", "check", "run/step-2.pth", "--chain", "m").exit_code == 0
    assert run("chain", "check", "run", "--chain", "m", "--to-version", "1").exit_code == 1
    assert "3 steps ahead" in run("chain", "status", "run/step-2.pth", "--chain", "m", "--to-version", "1").stdout


def test_check_runs_no_code(run: Run, chain: Path, tmp_path: Path) -> None:
    (chain / "03-double.py").write_text("import nothing_of_that_name\n" + CODE)
    assert run("chain", "check", TRAINING, "--chain", "m").exit_code == 1
    refused(run("migrate", TRAINING, "--chain", "m", "-o", "n.pth"), "03-double.py", "nothing_of_that_name")
    assert run("migrate", TRAINING, "--chain", "m", "-o", "n.pth", "--to-version", "3").exit_code == 0


def test_what_cannot_be_read_is_2(run: Run, chain: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in ("gone.pth", FIXTURES / "page.html.pth", "empty"):
        assert run("chain", "check", path, "--chain", "m").exit_code == 2
        assert run("chain", "status", path, TRAINING, "--chain", "m").exit_code == 2
    assert run("chain", "check", TRAINING, "--chain", "gone").exit_code == 2
    assert run("chain", "history", "gone.pth").exit_code == 2


def test_a_file_that_changed_since_is_reported(run: Run, chain: Path, tmp_path: Path) -> None:
    run("migrate", TRAINING, "--chain", "m", "-o", "n.pth")
    (chain / "02-turn.yaml").write_text("# a comment is no change\n" + rules("2", "3", TURN))
    assert data(run("chain", "check", "n.pth", "--chain", "m", "--json"))["targets"][0]["changed"] == []
    (chain / "02-turn.yaml").write_text(rules("2", "3", TURN + "- transpose: 'net.4.weight'\n"))
    found = run("chain", "check", "n.pth", "--chain", "m")
    assert found.exit_code == 0
    assert "02-turn.yaml" in found.stdout
    assert "has changed since" in " ".join(found.stdout.split())
    assert run("chain", "check", "n.pth", "--chain", "m", "--strict").exit_code == 1
    back = run("migrate", "n.pth", "--chain", "m", "-o", "b.pth", "--to-version", "1")
    refused(back, "02-turn.yaml", "has changed since", "--force")
    assert run("migrate", "n.pth", "--chain", "m", "-o", "b.pth", "--to-version", "3").exit_code == 0


def test_history(run: Run, chain: Path) -> None:
    assert "records no migrations" in run("chain", "history", TRAINING).stdout
    run("migrate", TRAINING, "--chain", "m", "-o", "n.pth", "--to-version", "2")
    found = data(run("chain", "history", "n.pth", "--json"))
    (one,) = found["migrations"]
    assert (found["schema"], found["version"]) == ("ckpttool.chain-history/1", "2")
    assert (one["step"], one["from"], one["to"], one["back"]) == ("01-net.yaml", "1", "2", False)
    assert one["tool"]
    assert one["when"]
    assert one["digest"] in run("migrate", TRAINING, "--chain", "m", "--dry-run", "--json").stdout
    assert "01-net.yaml" in run("chain", "history", "n.pth").stdout


# --- refusals ------------------------------------------------------------------------------------------------


def test_a_step_without_a_way_back_is_named(run: Run, small: Callable[..., Path]) -> None:
    small("- rename: 'a.weight'\n  to: 'c.weight'\n", "- drop: 'b.weight'\n", "- transpose: 'c.weight'\n")
    assert run("migrate", "a.pth", "--chain", "s", "-o", "n.pth").exit_code == 0
    back = run("migrate", "n.pth", "--chain", "s", "-o", "b.pth", "--to-version", "1")
    refused(back, "s/02.yaml", "'2' → '3'", "cannot be taken back", "what it drops is not kept")
    assert run("migrate", "n.pth", "--chain", "s", "-o", "b.pth", "--to-version", "3").exit_code == 0


def test_python_without_a_way_back_is_named(run: Run, small: Callable[..., Path]) -> None:
    code = CODE.replace('"3", "4"', '"1", "2"').partition("@up.down")[0]
    small(code)
    found = data(run("migrate", "a.pth", "--chain", "s", "-o", "n.pth", "--json"))
    assert found["written"] == "n.pth"
    refused(run("migrate", "n.pth", "--chain", "s", "-o", "b.pth", "--to-version", "1"), "s/01.py:5", "leads back")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("    raise ValueError('no such luck')", ["s/01.py:4", "no such luck", "'1' → '2'"]),
        ("    keys['a.weight'] = keys['a.weight'].map(lambda w: w.nothing)", ["s/01.py", "nothing"]),
        ("    keys['a.weight'] = keys['a.weight'].map(lambda w: w[:1])", ["s/01.py", "1 × 3", "2 × 3", "shape"]),
        ("    keys['a.weight'] = keys['a.weight'].map(abs, dtype='float31')", ["float31"]),
        ("    keys.plain['gone'] = 1", ["s/01.py", "'gone'"]),
        ("    del keys['gone']", ["s/01.py", "KeyError"]),
        ("    return 3", ["s/01.py", "int"]),
        ("    raise SystemExit(3)", ["s/01.py", "SystemExit"]),
    ],
)
def test_what_code_does_wrong_is_one_line_and_nothing_is_written(
    run: Run, small: Callable[..., Path], tmp_path: Path, body: str, words: list[str]
) -> None:
    small(f"import ckpttool\n\n@ckpttool.migration('1', '2')\ndef up(keys):\n{body}\n")
    refused(run("migrate", "a.pth", "--chain", "s", "-o", "n.pth"), *words)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pth", "s"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--chain", "m", "--rules", "m/01-net.yaml"],
        ["--chain", "m", "--preset", "strip-wrappers"],
        ["--chain", "m", "--reverse"],
        ["--chain", "gone"],
        ["--chain", "m/01-net.yaml"],
        ["--chain", "m", "--to-version", "9"],
        ["--chain", "m", "--set", "heads=4"],
        ["--rules", "m/01-net.yaml", "--to-version", "2"],
        ["--rules", "m/01-net.yaml", "--from-version", "2"],
    ],
)
def test_what_makes_no_sense_is_2(run: Run, chain: Path, arguments: list[str]) -> None:
    refused(run("migrate", TRAINING, "-o", "n.pth", *arguments))


def test_a_branch_names_both_files(run: Run, chain: Path) -> None:
    (chain / "02-other.yaml").write_text(rules("2", "5", TURN))
    result = run("migrate", TRAINING, "--chain", "m", "-o", "n.pth")
    refused(result, "m/02-other.yaml", "m/02-turn.yaml", "no branches")


def test_an_error_of_rules_names_file_line_and_step(run: Run, chain: Path) -> None:
    (chain / "02-turn.yaml").write_text(rules("2", "3", "- transpose: 'net.0.bias'\n"))
    refused(run("migrate", TRAINING, "--chain", "m", "-o", "n.pth"), "m/02-turn.yaml:6", "'2' → '3'")


# --- what Python can do --------------------------------------------------------------------------------------


def test_python_renames_drops_computes_adds_reads_and_sets(
    run: Run, small: Callable[..., Path], tmp_path: Path
) -> None:
    small(
        "import ckpttool\nimport numpy as np\n\n"
        "@ckpttool.migration('1', '2')\n"
        "def up(keys):\n"
        "    total = float(keys['a.weight'].numpy().sum())\n"
        "    assert (keys['a.weight'].dtype, keys['a.weight'].shape) == ('float32', (2, 3))\n"
        "    keys['c.weight'] = keys.compute(\n"
        "        lambda a, b: np.concatenate([a, b]), keys.pop('a.weight'), keys['b.weight'], shape=(4, 3))\n"
        "    keys['d.half'] = keys['b.weight'].map(lambda w: w[:1], shape=(1, 3), dtype='bfloat16')\n"
        "    keys['e.weight'] = keys.pop('b.weight')\n"
        "    keys['f.count'] = np.arange(3)\n"
        "    keys.plain['total'] = total\n"
        "    keys.plain['names'] = keys.plain['names'].upper()\n",
        values={"total": 0.0, "names": "old"},
    )  # fmt: skip
    done = run("migrate", "a.pth", "--chain", "s", "-o", "n.pth")
    assert done.exit_code == 0, done.stderr
    after = describe(tmp_path / "n.pth")
    forms = {e.key: (t.dtype.name, t.shape) for e, t in after.tensors()}
    assert forms == {
        "model.c.weight": ("float32", (4, 3)),
        "model.d.half": ("bfloat16", (1, 3)),
        "model.e.weight": ("float32", (2, 3)),
        "model.f.count": ("int64", (3,)),
    }
    values = {e.key: e.node.value for e in after.entries() if isinstance(e.node, Value)}
    assert values["names"] == "OLD"
    assert values["total"] > 0


def test_python_sees_the_whole_tree_where_it_asks(run: Run, small: Callable[..., Path], tmp_path: Path) -> None:
    code = (
        "import ckpttool\n\n@ckpttool.migration('1', '2', scope='tree')\ndef up(keys):\n"
        "    keys['step'] = keys.pop('global_step')\n"
    )
    small(code, values={"global_step": 7})
    done = run("migrate", "a.pth", "--chain", "s", "-o", "n.pth")
    assert done.exit_code == 0, done.stderr
    assert {e.key for e in describe(tmp_path / "n.pth").entries()} >= {"step", "model.a.weight"}


def test_neighbours_of_a_file_can_be_imported(run: Run, small: Callable[..., Path]) -> None:
    folder = small(
        "import ckpttool\nfrom _names_of_this_test import NEW\n\n@ckpttool.migration('1', '2')\ndef up(keys):\n"
        "    keys[NEW] = keys.pop('a.weight')\n"
    )
    (folder / "_names_of_this_test.py").write_text("NEW = 'z.weight'\n")
    assert run("migrate", "a.pth", "--chain", "s", "-o", "n.pth").exit_code == 0


def test_values_that_rules_ask_for_are_remembered_for_the_way_back(
    run: Run, small: Callable[..., Path], tmp_path: Path
) -> None:
    folder = small()
    view = "- permute: 'a.weight'\n  view: [parts, -1, 3]\n  axes: [1, 0, 2]\n"
    text = rules("1", "2", view).replace("rules:", "given: {parts: }\nrules:")
    (folder / "01.yaml").write_text(text)
    refused(run("migrate", "a.pth", "--chain", "s", "-o", "n.pth"), "s/01.yaml", "--set parts=VALUE")
    assert run("migrate", "a.pth", "--chain", "s", "-o", "n.pth", "--set", "parts=2").exit_code == 0
    assert data(run("chain", "history", "n.pth", "--json"))["migrations"][0]["given"] == {"parts": 2}
    assert run("migrate", "n.pth", "--chain", "s", "-o", "b.pth", "--to-version", "1").exit_code == 0
    assert run("diff", "a.pth", "b.pth").exit_code == 0
