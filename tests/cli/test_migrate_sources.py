"""ckpttool migrate on what people have: other formats than torch's, folders, odd files and places."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from click.testing import Result

from ckpttool.formats import describe
from ckpttool.stamps import stamps_of
from ckpttool.testing.dcp import Cuts, dcp_files
from ckpttool.testing.plain import Tensor, tensor
from ckpttool.testing.writers import safetensors_file, sharded_files, torch_file

Run: TypeAlias = Callable[..., Result]
FIXTURES = Path(__file__).parents[2] / "fixtures"
TRAINING = FIXTURES / "training.pth"

TURN = "- transpose: 'a'\n"


def rules(folder: Path, text: str) -> Path:
    path = folder / "rules.yaml"
    path.write_text(f"ckpttool: 1\nabout: a test\nrules:\n{text}")
    return path


def small() -> dict[str, Any]:
    return {"a": tensor((2, 3), bytes(range(24))), "b": tensor((2,), bytes(8))}


def data(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def content(path: Path, key: str) -> bytes:
    checkpoint = describe(path)
    found = next(node for entry, node in checkpoint.tensors() if entry.key == key)
    assert found.storage is not None
    span = checkpoint.storages[found.storage].span
    assert span is not None
    return Path(span.source).read_bytes()[span.start : span.stop]


def sharded(folder: Path) -> Path:
    folder.mkdir()
    for name, data in sharded_files(small()).items():
        (folder / name).write_bytes(data)
    return folder


TURNED = b"".join(bytes(range(24))[at : at + 4] for at in (0, 12, 4, 16, 8, 20))


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_tensors_of_safetensors_are_computed_with(run: Run, tmp_path: Path, suffix: str) -> None:
    (tmp_path / "old.safetensors").write_bytes(safetensors_file(small()))
    result = run("migrate", "old.safetensors", "-o", f"new.{suffix}", "--rules", rules(tmp_path, TURN))
    assert result.exit_code == 0, result.stderr
    assert content(tmp_path / f"new.{suffix}", "a") == TURNED


def test_tensors_of_the_first_torch_are_computed_with(run: Run, tmp_path: Path) -> None:
    old = FIXTURES / "torch_tar.pth"
    key = next(e.key for e, node in describe(old).tensors() if len(node.shape) == 2)
    file = rules(tmp_path, f"- transpose: '{key}'\n")
    result = run("migrate", old, "-o", "new.pth", "--rules", file, "--force")
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("size", [1, 10**9])
def test_shards_are_computed_with_and_remember(
    run: Run, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ckpttool.writing import sharded as writer

    monkeypatch.setattr(writer, "MAX_SHARD_SIZE", size)
    old, file = sharded(tmp_path / "old"), rules(tmp_path, TURN)
    result = run("migrate", old, "-o", "new", "--rules", file)
    assert result.exit_code == 0, result.stderr
    assert len(list((tmp_path / "new").iterdir())) == (3 if size == 1 else 1)
    assert content(tmp_path / "new", "a") == TURNED
    again = run("migrate", "new", "-o", "twice", "--rules", file)
    assert (again.exit_code, "already migrated" in again.stderr) == (2, True)
    assert run("migrate", "new", "-o", "back", "--rules", file, "--reverse").exit_code == 0
    assert content(tmp_path / "back", "a") == bytes(range(24))
    assert not any("ckpttool.migrations" in f.read_text(errors="replace") for f in (tmp_path / "back").iterdir())


def test_shards_of_torch_remember(run: Run, tmp_path: Path) -> None:
    (tmp_path / "old.pth").write_bytes(torch_file(small()))
    file = rules(tmp_path, TURN)
    assert run("migrate", "old.pth", "-o", "new", "--as", "sharded-bin", "--rules", file).exit_code == 0
    assert "already migrated" in run("migrate", "new", "-o", "twice", "--rules", file).stderr


def test_names_are_shown_as_inspect_shows_them(run: Run, tmp_path: Path) -> None:
    (tmp_path / "old.pth").write_bytes(torch_file({"a\nb\x1b[31m": small()["a"], "c\nd": small()["b"]}))
    file = rules(tmp_path, "- rename: '{any}'\n  to: 'n.{any}'\n  when: {shape: [2, 3]}\n")
    shown = run("migrate", "old.pth", "-o", "new.pth", "--rules", file).stdout
    assert "n.a\\nb\\x1b[31m " in shown
    assert "c\\nd" in shown
    assert "\\\\" not in shown


# --- rules for something else ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "- rename: net.weigth\n  to: net.scale\n",
        "- tie: b\n  to: net.weigth\n",
        "- transpose: net.weigth\n- drop: other\n  optional: true\n",
    ],
)
def test_rules_for_another_checkpoint_are_refused(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "old.pth").write_bytes(torch_file({"net.weight": tensor((2, 2), bytes(16)), "b": 1}))
    result = run("migrate", "old.pth", "-o", "new.pth", "--rules", rules(tmp_path, text))
    assert (result.exit_code, result.stdout, (tmp_path / "new.pth").exists()) == (2, "", False)
    assert "old.pth – the rules are for another checkpoint: " in result.stderr
    assert "rules.yaml:4" in result.stderr
    assert "nearest: 'net.weight'" in result.stderr


@pytest.mark.parametrize(
    "text",
    [
        "- rename: net.weigth\n  to: net.scale\n  optional: true\n",
        "- strip: [module]\n",
        "- rename: old.scale\n  to: net.weight\n",
        "- rename: net.weight\n  to: net.scale\n  when: {missing: b}\n",
    ],
    ids=["optional", "strip", "done before", "guarded"],
)
def test_rules_that_may_find_nothing_are_not(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "old.pth").write_bytes(torch_file({"net.weight": tensor((2, 2), bytes(16)), "b": 1}))
    result = run("migrate", "old.pth", "-o", "new.pth", "--rules", rules(tmp_path, text))
    assert (result.exit_code, (tmp_path / "new.pth").exists()) == (0, True), result.stderr


def test_rules_for_one_of_two_models_are_for_this_checkpoint(run: Run, tmp_path: Path) -> None:
    tree = {"net_g": {"g.weight": tensor((2, 2), bytes(16))}, "net_d": {"d.weight": tensor((2,), bytes(8))}}
    (tmp_path / "old.pth").write_bytes(torch_file(tree))
    file = rules(tmp_path, "- rename: g.weight\n  to: generator.weight\n")
    result = run("migrate", "old.pth", "-o", "new.pth", "--rules", file)
    assert result.exit_code == 0, result.stderr


# --- models of the user's own ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1\ndef f(:\n", "SyntaxError: invalid syntax ({}:2)"),
        ("def f():\n    return 1 / 0\n", "ZeroDivisionError: division by zero ({}:2)"),
        ("import nothing_like_this\n", "No module named 'nothing_like_this' ({}:1)"),
        ("g = 1\n", "has no attribute 'f'\n"),
    ],
)
def test_errors_of_a_factory_say_where_it_raised(
    run: Run, tmp_path: Path, source: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "own_model", raising=False)
    (tmp_path / "old.pth").write_bytes(torch_file(small()))
    (tmp_path / "own_model.py").write_text(source)
    result = run("migrate", "old.pth", "-o", "new.pth", "--to-model", "own_model:f")
    assert result.exit_code == 2
    assert said.format(tmp_path / "own_model.py") in result.stderr
    assert "frozen" not in result.stderr


# --- files of rules and of keys that are none ------------------------------------------------------------------


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100_000_000)


@pytest.mark.parametrize(
    ("make", "rules_say", "keys_say"),
    [
        (_fifo, "a FIFO, not a regular file", "a FIFO, not a regular file"),
        (Path.mkdir, "a directory", "holds no checkpoint"),
        (Path.touch, "the file is empty; it begins with 'ckpttool: 1'", "an empty file, not a checkpoint"),
        (lambda path: path.write_bytes(bytes(range(256)) * 9), "is no text, so no file of rules", "not a check"),
        (_large, "has 100 MB, and files of rules up to 16.8 MB are read", "zeros, not a checkpoint"),
        (lambda path: path.symlink_to("gone"), "no such file or directory", "no such file or directory"),
    ],
)
def test_what_is_no_file_is_neither_waited_for_nor_read(
    run: Run, tmp_path: Path, make: Callable[[Path], object], rules_say: str, keys_say: str
) -> None:
    make(tmp_path / "x")
    for option, said in (("--rules", rules_say), ("--to", keys_say)):
        result = run("migrate", TRAINING, option, "x", "--dry-run")
        assert result.exit_code == 2
        assert said in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1


def test_a_step_of_a_chain_that_cannot_be_read_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "chain").mkdir()
    (tmp_path / "chain" / "1.yaml").write_bytes(b"\xff\xfe")
    result = run("migrate", TRAINING, "--chain", "chain", "--dry-run")
    assert (result.exit_code, "chain/1.yaml" in result.stderr) == (2, True)


def test_the_record_goes_along_into_any_format_that_has_a_place(run: Run, tmp_path: Path) -> None:
    (tmp_path / "old.safetensors").write_bytes(safetensors_file(small()))
    assert run("migrate", "old.safetensors", "-o", "a.pth", "--rules", rules(tmp_path, TURN)).exit_code == 0
    ways = [("a.pth", "b.safetensors"), ("b.safetensors", "c.pth"), ("c.pth", "d"), ("d", "e.pth")]
    assert len(stamps_of(describe(tmp_path / "a.pth"))) == 1
    for source, made in ways:
        more = ["--max-shard-size", "10"] if made == "d" else []
        assert run("convert", source, "-o", made, *more).exit_code == 0
        assert stamps_of(describe(tmp_path / made)) == stamps_of(describe(tmp_path / "a.pth")), made
    result = run("convert", "a.pth", "-o", "f.pth", "--as", "torch-legacy", "--json")
    assert [one["key"] for one in data(result)["not_carried"] if one["kind"] == "content"] == ["ckpttool.migrations"]


# --- what lies beside -----------------------------------------------------------------------------------------

HEADS = """ckpttool: 1
given:
  heads: {from: [config.num_attention_heads]}
rules:
- permute: "a"
  view: [heads, -1, d1]
  axes: [1, 0, 2]
"""


def _model(folder: Path, config: str) -> Path:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(safetensors_file({"a": tensor((4, 1), bytes(range(16)))}))
    (folder / "config.json").write_text(config)
    (folder / "tokenizer.json").write_text("{}")
    (folder.parent / "heads.yaml").write_text(HEADS)
    return folder


def test_sizes_are_read_from_the_configuration_beside_the_weights_and_said(run: Run, tmp_path: Path) -> None:
    _model(tmp_path / "m", '{"num_attention_heads": 2}')
    found = data(run("migrate", "m", "--rules", "heads.yaml", "-o", "n", "--json"))
    notes = " ".join(found["notes"])
    assert "heads is 2, as m/config.json says (num_attention_heads)" in notes
    assert "left where they are: config.json, tokenizer.json; config.json describes the model as it was" in notes
    assert content(tmp_path / "n", "a") == bytes([*range(4), *range(8, 12), *range(4, 8), *range(12, 16)])
    said = data(run("migrate", "m", "--rules", "heads.yaml", "-o", "o", "--set", "heads=4", "--json"))
    assert not any("heads is" in note for note in said["notes"])
    # the way back remembers, where nothing beside it tells
    assert run("migrate", "n", "--rules", "heads.yaml", "--reverse", "-o", "back").exit_code == 0
    assert run("diff", "m", "back").exit_code == 0
    assert stamps_of(describe(tmp_path / "back")) == ()


@pytest.mark.parametrize("config", ["", "[1]", "{", "[" * 100_000, '{"num_attention_heads": [2]}'])
def test_a_configuration_that_tells_nothing_is_as_none(run: Run, tmp_path: Path, config: str) -> None:
    _model(tmp_path / "m", config)
    result = run("migrate", "m", "--rules", "heads.yaml", "-o", "n")
    assert (result.exit_code, "'heads' has no value" in result.stderr) == (2, True)


def test_convert_says_what_it_leaves_beside(run: Run, tmp_path: Path) -> None:
    _model(tmp_path / "m", "{}")
    result = data(run("convert", "m", "-o", "n.pth", "--json"))
    assert "left where they are: config.json, tokenizer.json" in result["notes"][0]


def test_steps_of_a_chain_take_sizes_from_there_too(run: Run, tmp_path: Path) -> None:
    _model(tmp_path / "m", '{"num_attention_heads": 2}')
    (tmp_path / "chain").mkdir()
    (tmp_path / "chain" / "1.yaml").write_text(HEADS.replace("given:", 'from: "1"\nto: "2"\ngiven:'))
    result = run("migrate", "m", "--chain", "chain", "--from-version", "1", "-o", "n", "--json")
    assert "heads is 2" in " ".join(data(result)["notes"])
    assert dict(stamps_of(describe(tmp_path / "n"))[0].given) == {"heads": 2}


# --- tensors in pieces ----------------------------------------------------------------------------------------

PIECES = """ckpttool: 1
rules:
- transpose: "a"
- split: "b"
  into: ["b1", "b2"]
  dim: 1
- concat: ["c", "d"]
  into: "cd"
  sizes: [2, 3]
  dim: 0
- rename: "e"
  to: "f"
"""


def _boxes(_: str, whole: Tensor) -> Cuts:
    """Four quarters of a matrix: boxes that no run of rows is; halves of a vector."""
    rows, *columns = whole.shape
    starts = [(i, n) for i, n in ((0, rows // 2), (rows // 2, rows - rows // 2)) if n]
    if not columns:
        return [((i,), (n,)) for i, n in starts]
    width = columns[0]
    sides = [(j, n) for j, n in ((0, width // 2), (width // 2, width - width // 2)) if n]
    return [((i, j), (n, m)) for i, n in starts for j, m in sides]


@pytest.mark.parametrize("made", ["new.pth", "new.safetensors", "new"])
def test_tensors_in_pieces_are_computed_with(run: Run, tmp_path: Path, made: str) -> None:
    shapes = {"a": (5, 3), "b": (4, 6), "c": (2, 3), "d": (3, 3), "e": (7,)}
    model = {k: tensor(s, bytes(range(4 * math.prod(s)))) for k, s in shapes.items()}
    (tmp_path / "pieces").mkdir()
    for name, blob in dcp_files(model, _boxes).items():
        (tmp_path / "pieces" / name).write_bytes(blob)
    (tmp_path / "whole.pth").write_bytes(torch_file(model))
    (tmp_path / "rules.yaml").write_text(PIECES)
    assert any(t.layout == "chunked" and len(t.parts) == 4 for _, t in describe(tmp_path / "pieces").tensors())
    for source, output in (("pieces", made), ("whole.pth", "expected.pth")):
        result = run("migrate", source, "-o", output, "--rules", "rules.yaml")
        assert result.exit_code == 0, result.stderr
    assert run("diff", "expected.pth", made).exit_code == 0
    # and the way back, and a copy without rules
    assert run("migrate", made, "-o", "back.pth", "--rules", "rules.yaml", "--reverse").exit_code == 0
    assert run("convert", "pieces", "-o", "copy.pth").exit_code == 0
    for output in ("back.pth", "copy.pth"):
        assert run("diff", "whole.pth", output).exit_code == 0


# --- DeepSpeed ------------------------------------------------------------------------------------------------

ZERO = FIXTURES / "deepspeed" / "global_step1"


def test_ranks_of_deepspeed_are_renamed_and_what_else_there_is_to_do_is_said(run: Run, tmp_path: Path) -> None:
    file = rules(tmp_path, "- rename: '{i}.{rest...}'\n  to: 'net.{i}.{rest...}'\n")
    found = data(run("migrate", ZERO, "--rules", file, "--dry-run", "--json"))
    assert any("zero_to_fp32.py" in note for note in found["notes"])
    assert {"mp_rank_00_model_states.pt.module.net.0.weight"} <= {key for step in found["plan"] for key in step["to"]}
    assert any("param_shapes" in key for step in found["plan"] for key in step["from"])


def test_flat_vectors_of_deepspeed_are_never_left_wrong(run: Run, tmp_path: Path) -> None:
    result = run("migrate", ZERO, "--rules", rules(tmp_path, "- transpose: '0.weight'\n"), "-o", "n.pth")
    assert (result.exit_code, (tmp_path / "n.pth").exists()) == (2, False)
    assert len(result.stderr.strip().splitlines()) == 1


# --- what is told ---------------------------------------------------------------------------------------------


def _deep() -> dict[str, Any]:
    names = [f"blocks.{i}.{part}" for i in range(12) for part in ("attn.w", "attn.b", "mlp.w")]
    return {**{name: tensor((2,), bytes(8)) for name in names}, "head.w": tensor((2,), bytes(8))}


def test_keys_that_no_rule_speaks_of_are_listed_folded(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(torch_file(_deep()))
    file = rules(tmp_path, "- rename: 'head.{name}'\n  to: 'top.{name}'\n- rename: 'tail.{name}'\n  to: 'end.{name}'\n")
    shown = run("migrate", "a.pth", "--rules", file, "--dry-run")
    assert shown.exit_code == 0, shown.stderr
    text = " ".join(shown.stdout.split())
    assert "no rule speaks of 36 keys, which stay as they are" in text
    assert "blocks.{0..11}.attn.{w,b}" in text
    assert "rename 'tail.{name}' to 'end.{name}': no key matches" in text
    found = data(run("migrate", "a.pth", "--rules", file, "--dry-run", "--json"))
    assert (len(found["unmatched"]), [rule["hits"] for rule in found["rules"]]) == (36, [1, 0])


def test_a_rename_computes_nothing(run: Run, tmp_path: Path) -> None:
    big = {"a": tensor((1 << 18,), bytes(1 << 20)), "b": tensor((2,), bytes(8))}
    (tmp_path / "a.pth").write_bytes(torch_file(big))
    file = rules(tmp_path, "- rename: 'a'\n  to: 'net.a'\n")
    found = data(run("migrate", "a.pth", "--rules", file, "-o", "b.pth", "--json"))
    assert found["copied"] >= 1 << 20
    assert found["computed"] < 4096
