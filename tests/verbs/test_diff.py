"""diff from files to report: pairs of formats, what is told, what could not be compared, exit codes."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ckpttool.changes import Tolerance
from ckpttool.errors import ExitCode, Unreadable, UsageError
from ckpttool.render import FORMATS, render
from ckpttool.report import Report, Text
from ckpttool.testing.edit import edited
from ckpttool.testing.plain import tensor
from ckpttool.testing.samples import FILES, SHAPES, training_state, weights
from ckpttool.testing.writers import legacy_file, safetensors_file, sharded_files, torch_file
from ckpttool.testing.zips import placed
from ckpttool.verbs.diff import diff

FIXTURES = Path(__file__).parents[2] / "fixtures"


def fixtures(a: str, b: str, **options: Any) -> Report:
    return diff(FIXTURES / a, FIXTURES / b, **options)


def kinds(report: Report) -> list[tuple[str, str]]:
    changes = report.data["changes"]
    assert isinstance(changes, list)
    return [(c["kind"], c["key"]) for c in changes if isinstance(c, dict)]  # type: ignore[misc]


def changed(report: Report, key: str) -> dict[str, Any]:
    changes = report.data["changes"]
    assert isinstance(changes, list)
    (found,) = [c for c in changes if isinstance(c, dict) and c["key"] == key]
    return found


def told(report: Report) -> str:
    return "\n".join(block.text for block in report.blocks if isinstance(block, Text))


@pytest.fixture
def pair(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """A training state, and the same after a function has changed it."""

    def make(change: Callable[[Any], None], suffix: str = ".pt") -> tuple[Path, Path]:
        data = FILES["torch-zip"]()
        one, other = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
        one.write_bytes(data)
        other.write_bytes(edited(data, change))
        return one, other

    return make


def scaled(key: str, by: float) -> Callable[[Any], None]:
    """Multiply the first element of one of the weights."""

    def change(state: Any) -> None:
        old = state["model"][key]
        data = bytes(old.storage.data)
        (first,) = struct.unpack("<f", data[:4])
        state["model"][key] = tensor(tuple(old.shape), struct.pack("<f", first * by) + data[4:])

    return change


# --- equal ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("mlp.pth", "mlp.pth"), ("mlp.pth", "mlp.safetensors"), ("mlp.pth", "legacy.pth"), ("mlp.pth", "aligned.pth"),
        ("training.pth", "legacy_training.pth"), ("tied.pth", "tied.pth"), ("layouts.pth", "layouts.pth"),
        ("dtypes.pth", "dtypes.pth"), ("python_values.pth", "python_values.pth"), ("module.pth", "module.pth"),
        ("unnamed_optimizer.pth", "unnamed_optimizer.pth"), ("optimizers.pth", "optimizers.pth"),
        ("schedulers.pth", "schedulers.pth"), ("sharded", "sharded"), ("trainer/checkpoint-4", "trainer/checkpoint-4"),
        ("rezipped.pth", "deflated.pth"), ("torch113_training.pth", "torch113_legacy.pth"),
    ],
)  # fmt: skip
def test_the_same_in_another_format_is_identical(a: str, b: str) -> None:
    report = fixtures(a, b)
    assert kinds(report) == []
    coverage = report.data["coverage"]
    assert isinstance(coverage, dict)
    unread = coverage["not_compared"]
    if not unread:
        assert (report.data["identical"], report.exit_code) == (True, ExitCode.OK)
    else:
        assert (report.data["identical"], report.exit_code) == (False, ExitCode.IMPOSSIBLE)


def test_all_formats_of_one_state_dict(tmp_path: Path) -> None:
    state = weights()
    (tmp_path / "a.pt").write_bytes(torch_file(state))
    (tmp_path / "b.pt").write_bytes(legacy_file(state))
    (tmp_path / "c.safetensors").write_bytes(safetensors_file(state, {"format": "pt"}))
    (tmp_path / "d").mkdir()
    for name, data in sharded_files(state).items():
        (tmp_path / "d" / name).write_bytes(data)
    sides = [tmp_path / name for name in ("a.pt", "b.pt", "c.safetensors", "d")]
    for one in sides:
        for other in sides:
            report = diff(one, other)
            assert (kinds(report), report.exit_code) == ([], ExitCode.OK)


def test_nothing_but_values_can_be_identical_and_coverage_says_so() -> None:
    report = fixtures("python_values.pth", "python_values.pth")
    assert report.data["identical"] is True
    assert "0 of 0 pairs of tensors" in told(report)


# --- wrappers and ties ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("b", "prefix"), [("ddp.pth", "module"), ("compile.pth", "_orig_mod")])
def test_a_wrapper_is_one_change(b: str, prefix: str) -> None:
    report = fixtures("mlp.pth", b)
    assert kinds(report) == [("renamed", f"{prefix}.*")]
    assert report.exit_code == ExitCode.FINDINGS
    assert f"prefix {prefix}. added" in told(report)
    assert kinds(fixtures(b, "mlp.pth")) == [("renamed", "*")]


def test_a_tie_undone_is_retied(tmp_path: Path) -> None:
    shared = tensor((2, 2), bytes(16))
    (tmp_path / "a.pt").write_bytes(torch_file({"embed.weight": shared, "head.weight": shared}))
    apart = {"embed.weight": tensor((2, 2), bytes(16)), "head.weight": tensor((2, 2), bytes(16))}
    (tmp_path / "b.pt").write_bytes(torch_file(apart))
    report = diff(tmp_path / "a.pt", tmp_path / "b.pt")
    assert {kind for kind, _ in kinds(report)} == {"retied"}


# --- training ------------------------------------------------------------------------------------------


def test_three_steps_later() -> None:
    report = fixtures("training.pth", "training_next.pth")
    found = {key: kind for kind, key in kinds(report)}
    assert found["model.0.weight"] == "rewritten"
    assert found["optimizer.state.0.weight.exp_avg"] == "rewritten"
    assert found["optimizer.param_groups.0.lr"] == found["global_step"] == found["scheduler.last_epoch"] == "edited"
    assert found["scaler._growth_tracker"] == "edited"
    assert set(found.values()) == {"rewritten", "edited"}
    assert (changed(report, "global_step")["before"], changed(report, "global_step")["after"]) == (7, 10)
    assert "all 9 tensors rewritten" in told(report)


def test_an_unnamed_optimizer_goes_by_its_recovered_names(tmp_path: Path) -> None:
    data = (FIXTURES / "unnamed_optimizer.pth").read_bytes()

    def change(state: Any) -> None:
        moments = state["optimizer_state_dict"]["state"]
        moments[4]["momentum_buffer"] = tensor((4, 16), bytes(256))

    (tmp_path / "b.pth").write_bytes(edited(data, change))
    report = diff(FIXTURES / "unnamed_optimizer.pth", tmp_path / "b.pth")
    assert kinds(report) == [("rewritten", "optimizer_state_dict.state.4.weight.momentum_buffer")]
    assert changed(report, "optimizer_state_dict.state.4.weight.momentum_buffer")["stats"]["cosine"] is None
    assert "no cosine: a side is all zero" in render(report, "text", 200)


def test_two_parameters_in_another_order(pair: Callable[..., tuple[Path, Path]]) -> None:
    names = list(SHAPES)

    def change(state: Any) -> None:
        group, moments = state["optimizer"]["param_groups"][0], state["optimizer"]["state"]
        group["param_names"][0], group["param_names"][1] = names[1], names[0]
        moments[0], moments[1] = moments[1], moments[0]

    report = diff(*pair(change))
    assert kinds(report) == [("reordered", "optimizer.param_groups")]
    assert "two parameters changed order: their moments would be swapped" in told(report)


def test_a_change_that_nothing_explains_is_pointed_out(pair: Callable[..., tuple[Path, Path]]) -> None:
    report = diff(*pair(scaled("hidden.bias", 2)))
    assert kinds(report) == [("rewritten", "model.hidden.bias")]
    assert "although counters, optimizer and everything else agree" in told(report)


def test_new_nan_is_told_first(pair: Callable[..., tuple[Path, Path]]) -> None:
    report = diff(*pair(scaled("hidden.bias", float("nan"))))
    assert changed(report, "model.hidden.bias")["stats"]["new_nan"] == 1
    assert "new NaN or infinity in 1 tensor, such as model.hidden.bias" in told(report)


# --- equal, close, different ---------------------------------------------------------------------------


def test_equal_close_and_different_are_told_apart(pair: Callable[..., tuple[Path, Path]]) -> None:
    sides = pair(scaled("hidden.bias", 1.000001))
    bitwise, close = diff(*sides), diff(*sides, tolerance=Tolerance(rtol=1e-5))
    assert (bitwise.data["identical"], bitwise.data["close"], bitwise.exit_code) == (False, False, ExitCode.FINDINGS)
    assert (close.data["identical"], close.data["close"], close.exit_code) == (False, True, ExitCode.OK)
    assert "equal within the tolerance: 1 tensor differs by at most" in told(close)
    same = diff(sides[0], sides[0], tolerance=Tolerance(rtol=1e-5))
    assert (same.data["identical"], same.data["close"]) == (True, True)


def test_a_tolerance_does_not_excuse_values(pair: Callable[..., tuple[Path, Path]]) -> None:
    report = diff(*pair(lambda state: state.update(epoch=1000)), tolerance=Tolerance(atol=1e9))
    assert kinds(report) == [("edited", "epoch")]
    assert report.exit_code == ExitCode.FINDINGS


# --- quick ---------------------------------------------------------------------------------------------


def rotten(path: Path, key: str = "data/0") -> Path:
    """A copy in which one byte of a storage is another one and everything recorded is as before."""
    data = bytearray(path.read_bytes())
    (record,) = [one for one in placed(bytes(data)) if one.name.endswith(key)]
    data[record.start] ^= 1
    made = path.with_name(f"rotten{path.suffix}")
    made.write_bytes(data)
    return made


def test_quick_believes_what_was_recorded(pair: Callable[..., tuple[Path, Path]]) -> None:
    one, other = pair(scaled("hidden.bias", 2))
    report = diff(one, other, quick=True)
    assert kinds(report) == [("rewritten", "model.hidden.bias")]
    assert changed(report, "model.hidden.bias")["stats"] is None
    same = diff(one, rotten(one), quick=True)
    assert (kinds(same), same.exit_code) == ([], ExitCode.OK)
    assert "identical as saved" in told(same)


def test_bit_rot_is_marked(pair: Callable[..., tuple[Path, Path]]) -> None:
    one, _ = pair(lambda state: None)
    report = diff(one, rotten(one))
    ((kind, key),) = kinds(report)
    assert kind == "rewritten"
    assert changed(report, key)["note"].startswith("bit rot")
    assert "run ckpttool verify on both" in told(report)


def test_quick_never_says_identical_of_what_it_did_not_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.safetensors").write_bytes(safetensors_file(weights()))
    path = tmp_path / "a.safetensors"
    assert diff(path, path, quick=True).exit_code == ExitCode.OK  # little enough to be read
    monkeypatch.setattr("ckpttool.verbs.diff_content.QUICK", 0)
    report = diff(path, path, quick=True)
    assert (report.data["identical"], report.exit_code) == (False, ExitCode.IMPOSSIBLE)
    assert "no comparable checksums are recorded" in told(report)


def test_checksums_know_no_tolerance() -> None:
    with pytest.raises(UsageError, match="--quick"):
        fixtures("mlp.pth", "mlp.pth", quick=True, tolerance=Tolerance(atol=1))


# --- not comparable ------------------------------------------------------------------------------------


def test_what_is_no_checkpoint_is_named() -> None:
    report = fixtures("mlp.pth", "page.html.pth")
    assert (report.exit_code, report.data["identical"]) == (ExitCode.IMPOSSIBLE, False)
    assert "web page" in told(report)
    with pytest.raises(Unreadable):
        diff(FIXTURES / "mlp.pth", FIXTURES / "gone.pth")


def test_a_damaged_side_is_compared_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = (FIXTURES / "training.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) * 2 // 3])
    report = diff(FIXTURES / "training.pth", tmp_path / "cut.pth")
    coverage = report.data["coverage"]
    assert isinstance(coverage, dict)
    assert report.exit_code == ExitCode.IMPOSSIBLE
    assert "truncated" in told(report)
    assert isinstance(coverage["compared"], int)
    assert 0 < coverage["compared"] < 38


# --- selections, and what does not matter --------------------------------------------------------------


def test_selections() -> None:
    both = ("training.pth", "training_next.pth")
    assert {key.split(".")[0] for _, key in kinds(fixtures(*both, sections=["weights"]))} == {"model"}
    assert kinds(fixtures(*both, only=["global_step"])) == [("edited", "global_step")]
    assert not [key for _, key in kinds(fixtures(*both, ignore=["model.*"])) if key.startswith("model")]
    named = fixtures(*both, only=["optimizer.state.0.weight.*"])
    numbered = fixtures(*both, only=["optimizer.state.0.exp_avg"])
    assert ("rewritten", "optimizer.state.0.weight.exp_avg") in kinds(named)
    assert kinds(numbered) == [("rewritten", "optimizer.state.0.weight.exp_avg")]
    with pytest.raises(UsageError, match="nothing is left by --only 'nowhere'"):
        fixtures(*both, only=["nowhere"])


def test_top_and_all() -> None:
    short, long = (
        render(fixtures("training.pth", "training_next.pth", **options), "text", 200)
        for options in ({"top": 3}, {"everything": True})
    )
    assert "changed most, 3 of 37 (--all shows every one)" in short
    assert "changed most" not in long


def test_threads_change_nothing() -> None:
    alone = fixtures("training.pth", "training_next.pth", jobs=1).json
    with ThreadPoolExecutor(3) as pool:
        assert fixtures("training.pth", "training_next.pth", executor=pool).json == alone


@pytest.mark.parametrize("form", [form for form in FORMATS if form not in ("junit", "sarif")])
def test_every_format_renders(form: str) -> None:
    text = render(fixtures("training.pth", "training_next.pth"), form)
    assert text.isprintable() or "\n" in text
    if form == "json":
        assert set(json.loads(text)) >= {"identical", "close", "coverage", "summary", "changes", "metadata"}
    if form == "github":
        assert text.startswith("::warning file=")


def test_one_setting_is_one_edit(tmp_path: Path) -> None:
    state = training_state()
    (tmp_path / "a.pt").write_bytes(torch_file(state))
    state["config"]["lr"] = 0.5
    (tmp_path / "b.pt").write_bytes(torch_file(state))
    assert kinds(diff(tmp_path / "a.pt", tmp_path / "b.pt")) == [("edited", "config.lr")]
