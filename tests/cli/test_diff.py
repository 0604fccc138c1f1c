"""ckpttool diff: options, streams, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from click.testing import Result

from ckpttool.testing.samples import FILES, weights
from ckpttool.testing.writers import safetensors_file

Run: TypeAlias = Callable[..., Result]
FIXTURES = Path(__file__).parents[2] / "fixtures"
MLP, NEXT, TRAINING, DDP = (FIXTURES / name for name in ("mlp.pth", "training_next.pth", "training.pth", "ddp.pth"))


def test_help_lists_the_options_and_exit_statuses(run: Run) -> None:
    text = run("diff", "--help").stdout
    for option in (
        "--atol --rtol --ulp --only --ignore --section --quick --top --all --format --json --report --no-infer --jobs "
        "--against"
    ).split():
        assert option in text
    assert "Exit status:" in text
    assert "0  identical" in text


def test_identical_is_0(run: Run) -> None:
    result = run("diff", MLP, FIXTURES / "mlp.safetensors")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "identical" in result.stdout


def test_different_is_1_and_json_says_what(run: Run) -> None:
    result = run("diff", TRAINING, NEXT, "--json")
    data = json.loads(result.stdout)
    assert result.exit_code == data["exit_code"] == 1
    assert (data["schema"], data["ok"], data["identical"], data["close"]) == ("ckpttool.diff/1", False, False, False)
    assert data["summary"] == {"rewritten": 37, "edited": 12}
    stats = {"max_abs", "mean_abs", "max_rel", "rms", "cosine", "changed", "numel", "max_ulp"}
    for change in data["changes"]:
        assert set(change) >= {"kind", "kinds", "key", "old_key", "before", "after", "stats"}
        assert change["stats"] is None or set(change["stats"]) >= stats


@pytest.mark.parametrize("b", ["page.html.pth", "lfs_pointer.pth", "empty.pth", "gone.pth"])
def test_not_comparable_is_2(run: Run, b: str) -> None:
    assert run("diff", MLP, FIXTURES / b).exit_code == 2


def test_usage_is_2(run: Run) -> None:
    for arguments in ([MLP], [MLP, DDP, "--against", "k.json"], [MLP, MLP, "--quick", "--atol", "1"]):
        result = run("diff", *arguments)
        assert result.exit_code == 2
        assert "error:" in result.stderr


def test_tolerances_reach_the_comparison(run: Run) -> None:
    assert run("diff", TRAINING, NEXT, "--section", "weights", "--atol", "1e9").exit_code == 0
    assert run("diff", TRAINING, NEXT, "--section", "weights", "--rtol", "2").exit_code == 0
    assert run("diff", TRAINING, NEXT, "--section", "weights", "--ulp", "3").exit_code == 1


def test_globs_and_rows(run: Run) -> None:
    text = run("diff", TRAINING, NEXT, "--only", "model.*", "--top", "1").stdout
    assert "changed most, 1 of 9 (--all shows every one)" in text
    assert "changed most" not in run("diff", TRAINING, NEXT, "--only", "model.*", "--all").stdout


def test_quick(run: Run) -> None:
    assert "identical as saved" in run("diff", MLP, MLP, "--quick").stdout
    assert run("diff", TRAINING, NEXT, "--quick").exit_code == 1


def test_no_infer_pairs_what_is_sure(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(safetensors_file(weights()))
    moved = {f"net.{key}": value for key, value in weights(seed=8).items() if key.startswith("hidden")}
    (tmp_path / "b.safetensors").write_bytes(safetensors_file(moved))
    sure = json.loads(run("diff", "a.safetensors", "b.safetensors", "--no-infer", "--json").stdout)
    assert all(change["score"] == 1 or change["facts"]["how"] != "inferred" for change in sure["changes"])


def test_reports_and_formats(run: Run, tmp_path: Path) -> None:
    result = run("diff", TRAINING, NEXT, "--report", "d.html", "--report", "d.md", "--report", "d.json", "-q")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "<html" in (tmp_path / "d.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "d.json").read_text(encoding="utf-8"))["identical"] is False
    assert run("diff", TRAINING, NEXT, "--format", "github").stdout.startswith("::warning file=")


def test_what_was_left_out_is_not_said_to_agree(run: Run) -> None:
    one = ["--only", "model.*", "--ignore", "*.num_batches_tracked"]
    assert "everything else agree" not in run("diff", TRAINING, NEXT, *one).stdout


# --- against -------------------------------------------------------------------------------------------


def keys_of(run: Run, path: Path, *options: str) -> str:
    assert run("inspect", path, "--keys", "keys.json", "-q", *options).exit_code == 0
    return "keys.json"


def test_everything_loads(run: Run) -> None:
    result = run("diff", MLP, "--against", keys_of(run, MLP))
    assert result.exit_code == 0
    assert "100 % of the parameters would load" in result.stdout


def test_keys_of_an_optimizer_are_looked_for_where_they_are_asked_for(run: Run) -> None:
    data = json.loads(run("diff", TRAINING, "--against", keys_of(run, TRAINING), "--json").stdout)
    assert (data["exit_code"], data["loads"]["share"]) == (0, 1.0)


def test_a_prefix_is_suggested(run: Run) -> None:
    result = run("diff", DDP, "--against", keys_of(run, MLP), "--json")
    data = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (data["loads"]["share"], data["loads"]["tensors"]) == (0.0, 0)
    assert (data["suggestion"]["strip"], data["suggestion"]["add"], data["suggestion"]["share"]) == ("module.", "", 1.0)
    text = run("diff", DDP, "--against", "keys.json").stdout
    assert "take the prefix module. off the checkpoint's keys: then 100 %" in " ".join(text.split())


def test_a_training_state_against_a_model_alone(run: Run) -> None:
    data = json.loads(run("diff", TRAINING, "--against", keys_of(run, MLP), "--json").stdout)
    assert data["suggestion"]["strip"] == "model."
    assert data["suggestion"]["missing"] == data["suggestion"]["unexpected"] == []


def test_another_shape_does_not_load(run: Run, tmp_path: Path) -> None:
    keys = json.loads((tmp_path / keys_of(run, MLP)).read_text())
    for one in keys["keys"]:
        if one["key"] == "4.bias":
            one["shape"] = [10]
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    data = json.loads(run("diff", MLP, "--against", "keys.json", "--json").stdout)
    assert data["loads"]["misshapen"] == ["4.bias"]
    assert data["summary"] == {"reshaped": 1}
    assert 0.9 < data["loads"]["share"] < 1


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"keys": [1]}', '{"keys": [{"key": "a", "shape": [-1]}]}', "[" * 100_000]
)
def test_what_is_no_list_of_keys_is_2(run: Run, tmp_path: Path, content: str) -> None:
    (tmp_path / "k.json").write_text(content)
    result = run("diff", MLP, "--against", "k.json")
    assert result.exit_code == 2
    assert "holds no keys" in result.stderr
    assert run("diff", MLP, "--against", "gone.json").exit_code == 2


def test_the_sample_differs_from_itself_in_nothing(run: Run, tmp_path: Path) -> None:
    for name, make in FILES.items():
        (tmp_path / name).write_bytes(make())
        assert run("diff", name, name).exit_code == 0
