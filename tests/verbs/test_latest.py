"""The newest checkpoint of a run, and the pruning of the others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from ckpttool.errors import ExitCode, Unreadable, UsageError
from ckpttool.retention import Item, Kept, Metrics, reasons_to_keep
from ckpttool.testing.samples import run_files, training_state, weights
from ckpttool.testing.writers import safetensors_file, sharded_files, torch_file
from ckpttool.verbs.latest import latest
from ckpttool.verbs.prune import prune
from ckpttool.verbs.runs import candidates, counted

GOOD = torch_file(training_state())


def put(folder: Path, name: str, data: bytes = GOOD, age: int = 0) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, ns=(10**18 - age, 10**18 - age))
    return path


def chosen(folder: Path, **wishes: Any) -> str | None:
    path: Any = latest(folder, **wishes).data["path"]
    return None if path is None else os.path.relpath(path, folder)


@pytest.mark.parametrize(
    "names",
    [
        ["step-9.pth", "step-10.pth"],
        ["epoch=3-step=90.ckpt", "epoch=4-step=100.ckpt"],
        ["epoch_9.pth", "epoch_10.pth"],
        ["checkpoint-9.pth.tar", "checkpoint-10.pth.tar"],
        ["ep0-ba9-rank0.pt", "ep0-ba10-rank0.pt"],
        ["iter_0000009/mp_rank_00/model_optim_rng.pt", "iter_0000010/mp_rank_00/model_optim_rng.pt"],
        ["9.pt", "10.pt"],
        ["model.9.pth", "model.10.pth"],
    ],
)  # fmt: skip
def test_names_count_and_times_do_not(tmp_path: Path, names: list[str]) -> None:
    for age, name in enumerate(names):
        put(tmp_path, name, age=age)
    assert chosen(tmp_path) in (names[-1], str(Path(names[-1]).parent))


def test_without_numbers_the_time_of_writing_decides(tmp_path: Path) -> None:
    put(tmp_path, "last.pth", age=0)
    put(tmp_path, "epoch_10.pth", age=5)
    assert chosen(tmp_path) == "last.pth"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("epoch=3-step=400.ckpt", (0, 400)), ("global_step1000", (0, 1000)), ("checkpoint-500", (2, 500)),
        ("checkpoint-500/model.pt", (2, 500)), ("last.ckpt", (-1, -1)), ("resnet50.pth", (-1, -1)),
        ("ep3-ba1200-rank0.pt", (1, 1200)), ("step_07.pth", (0, 7)), ("timestep3.pth", (-1, -1)),
    ],
)  # fmt: skip
def test_what_a_name_counts(name: str, expected: tuple[int, int]) -> None:
    assert counted(name) == expected


def test_damaged_cut_and_half_written_ones_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path, "step-1.pth")
    flipped = bytearray(GOOD)
    flipped[GOOD.rindex(b"data/0") - 4000] ^= 1
    put(tmp_path, "step-2.pth", GOOD[:-3000])
    put(tmp_path, "step-3.pth", b"")
    put(tmp_path, "step-4.pth", GOOD.replace(b"PK\x01\x02", b"PK\x01\x03"))
    assert chosen(tmp_path) == "step-1.pth"
    skipped: Any = latest(tmp_path).data["skipped"]
    assert [Path(s["path"]).name for s in skipped] == ["step-4.pth", "step-3.pth", "step-2.pth"]
    assert all(s["why"] for s in skipped)


def test_a_flipped_bit_is_seen_unless_only_headers_count(tmp_path: Path) -> None:
    put(tmp_path, "step-1.pth")
    path = put(tmp_path, "step-2.pth")
    data = bytearray(GOOD)
    data[10_000] ^= 1
    path.write_bytes(data)
    assert chosen(tmp_path) == "step-1.pth"
    assert chosen(tmp_path, headers_only=True) == "step-2.pth"


def test_what_is_required_counts(tmp_path: Path) -> None:
    put(tmp_path, "step-1.pth")
    put(tmp_path, "step-2.safetensors", safetensors_file(weights(), {"format": "pt"}))
    assert chosen(tmp_path) == "step-2.safetensors"
    assert chosen(tmp_path, require="resumable") == "step-1.pth"


def test_folders_are_checkpoints_too(tmp_path: Path) -> None:
    for step in (9, 10, 11):
        for name, data in run_files().items():
            put(tmp_path, f"checkpoint-{step}/{name}", data)
    (tmp_path / "checkpoint-11" / "model.safetensors").write_bytes(b"")
    assert chosen(tmp_path) == "checkpoint-10"


def test_sharded_sets_need_all_their_shards(tmp_path: Path) -> None:
    for step in (1, 2):
        for name, data in sharded_files(weights()).items():
            put(tmp_path, f"step-{step}/{name}", data)
    (tmp_path / "step-2" / "model-00002-of-00002.safetensors").unlink()
    assert str(chosen(tmp_path)).startswith("step-1")


def test_links_come_once(tmp_path: Path) -> None:
    put(tmp_path, "step-1.pth")
    (tmp_path / "last.pth").symlink_to("step-1.pth")
    assert [Path(c.path).name for c in candidates(tmp_path)] == ["step-1.pth"]


def test_none_is_exit_code_one_and_no_folder_an_error(tmp_path: Path) -> None:
    assert latest(tmp_path).exit_code == ExitCode.FINDINGS
    with pytest.raises(Unreadable):
        latest(tmp_path / "nowhere")
    with pytest.raises(Unreadable):
        latest(put(tmp_path, "a.pth"))


# --- prune -----------------------------------------------------------------------------------------------


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_nothing_is_deleted_unless_asked(tmp_path: Path) -> None:
    for step in range(5):
        put(tmp_path, f"step-{step}.pth")
    before = left(tmp_path)
    prune(tmp_path, keep_last=2)
    assert left(tmp_path) == before
    prune(tmp_path, keep_last=2, keep_every=2, delete=True)
    assert left(tmp_path) == ["step-0.pth", "step-2.pth", "step-3.pth", "step-4.pth"]


def test_an_unsound_survivor_stops_the_deletion(tmp_path: Path) -> None:
    for step in range(3):
        put(tmp_path, f"step-{step}.pth")
    put(tmp_path, "step-9.pth", GOOD[:9000])
    report = prune(tmp_path, keep_last=1, delete=True)
    assert report.exit_code == ExitCode.FINDINGS
    assert len(left(tmp_path)) == 4


def test_the_best_by_a_number_in_the_checkpoint(tmp_path: Path) -> None:
    for step, loss in enumerate([0.5, 0.1, float("nan"), 0.3]):
        put(tmp_path, f"step-{step}.pth", torch_file({"model": weights(), "val": {"loss": loss}}))
    prune(tmp_path, keep_last=1, keep_best=1, metric="val.loss", delete=True)
    assert left(tmp_path) == ["step-1.pth", "step-3.pth"]


def test_the_best_by_what_the_store_noted(tmp_path: Path) -> None:
    for step in range(4):
        put(tmp_path, f"step-{step:08d}.pth")
    noted = Metrics(dict(enumerate([0.5, 0.9, float("nan"), 0.7])), lower=False)
    (tmp_path / "metrics.json").write_bytes(noted.encoded())
    assert repr(Metrics.parse(noted.encoded())) == repr(noted)
    prune(tmp_path, keep_last=1, keep_best=1, delete=True)
    assert [n for n in left(tmp_path) if n.endswith(".pth")] == ["step-00000001.pth", "step-00000003.pth"]
    for notes in (b"oops", b"[]", b'{"metrics": {}}', b'{"better": "much", "metrics": {}}', b"[" * 100_000):
        (tmp_path / "metrics.json").write_bytes(notes)
        with pytest.raises(UsageError, match=r"metrics\.json – cannot be read"):
            prune(tmp_path, keep_best=1)


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.pth")
    with pytest.raises(UsageError, match="--keep-last"):
        prune(tmp_path)
    with pytest.raises(UsageError, match="--metric"):
        prune(tmp_path, keep_best=1)
    with pytest.raises(UsageError, match="no checkpoint has a metric under"):
        prune(tmp_path, keep_best=1, metric="val.loss")
    with pytest.raises(UsageError, match="--keep-every needs a step"):
        prune(tmp_path, keep_every=10)


def test_manifests_and_folders_go_with_their_checkpoints(tmp_path: Path) -> None:
    from ckpttool.verbs.seal import seal

    for step in (1, 2):
        seal(put(tmp_path, f"step-{step}.pth"))
        for name, data in run_files().items():
            put(tmp_path / "hf", f"checkpoint-{step}/{name}", data)
    prune(tmp_path / "hf", keep_last=1, delete=True)
    assert left(tmp_path / "hf") == ["checkpoint-2"]
    (tmp_path / "hf").rename(tmp_path.with_name(f"{tmp_path.name}-hf"))
    prune(tmp_path, keep_last=1, delete=True)
    assert left(tmp_path) == ["step-2.pth", "step-2.pth.manifest.json"]


ITEMS = st.lists(st.builds(Item, st.uuids().map(str), st.integers(0, 99), st.none() | st.floats()), max_size=12)


@given(ITEMS, st.integers(1, 5), st.none() | st.integers(1, 9), st.integers(0, 4), st.booleans())
def test_retention_keeps_what_it_says(items: list[Item], last: int, every: int | None, best: int, lower: bool) -> None:
    stay = reasons_to_keep(items, Kept(last, every, best, lower))
    assert sum("last" in why for why in stay.values()) == min(last, len(items))
    assert {i.name for i in items if every and i.step % every == 0} == {n for n, w in stay.items() if "every" in w}
    measured = sorted(i.metric for i in items if i.metric is not None and i.metric == i.metric)
    chosen = sorted(i.metric for i in items if i.metric is not None and "best" in stay.get(i.name, ()))
    assert chosen == (measured[:best] if lower else measured[len(measured) - min(best, len(measured)) :])
    if items:
        newest = max(item.step for item in items)
        assert any(i.step == newest and "last" in stay.get(i.name, ()) for i in items)


def test_asking_for_nothing_keeps_everything() -> None:
    assert reasons_to_keep([Item("a", 1)], Kept(None)) == {"a": ("last",)}
