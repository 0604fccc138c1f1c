"""Sealed checkpoints of every format, damaged and edited in every way: what verify calls each."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ckpttool.errors import UsageError
from ckpttool.formats import describe
from ckpttool.manifest import INSIDE_KEY, LIMIT, SIDECAR, sidecar
from ckpttool.testing.dcp import dcp_files
from ckpttool.testing.plain import tensor
from ckpttool.testing.samples import distributed_state, training_state, weights
from ckpttool.testing.writers import legacy_file, safetensors_file, sharded_files, torch_file
from ckpttool.verbs.seal import seal
from ckpttool.verbs.verify import verify

Change = Callable[[Path], None]
"""Changes a checkpoint's largest file in place."""


FORMATS: dict[str, Callable[[int], dict[str, bytes]]] = {
    "torch-zip": lambda seed: {"a.pth": torch_file(training_state(seed=seed))},
    "torch-legacy": lambda seed: {"a.pth": legacy_file(training_state(seed=seed))},
    "safetensors": lambda seed: {"a.safetensors": safetensors_file(weights(seed=seed), {"format": "pt"})},
    "sharded": lambda seed: sharded_files(weights(seed=seed)),
    "dcp": lambda seed: dcp_files(distributed_state(seed=seed)),
}


def made(folder: Path, form: str, seed: int = 7) -> tuple[Path, Path]:
    """What to seal and verify, and its largest file."""
    files = FORMATS[form](seed)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    largest = max(files, key=lambda name: len(files[name]))
    return (folder if len(files) > 1 else folder / largest), folder / largest


def flip(path: Path, at: int, mask: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= mask
    path.write_bytes(data)
    os.utime(path, ns=(10**18, 10**18))


def in_a_payload(path: Path) -> None:
    span = max(
        (s.span for s in describe(path).storages if s.span), key=lambda span: span.nbytes
    ) if path.suffix != ".distcp" else None  # fmt: skip
    flip(path, span.start if span else len(path.read_bytes()) // 2)


def in_a_name(path: Path) -> None:
    data = path.read_bytes()
    name = next(name for name in (b"hidden.weight", b"embed.weight", b"out.weight") if name in data)
    flip(path, data.index(name) + 2)


def in_the_padding(path: Path) -> None:
    """Bytes that no reader looks at: between zip records, or the spaces behind a header."""
    data = path.read_bytes()
    flip(
        path, data.index(b"ZZZZ") + 1 if b"ZZZZ" in data else data.index(b"}  ") + 1, 0x41 if b"ZZZZ" in data else 0x29
    )


def at_the_end(path: Path) -> None:
    flip(path, len(path.read_bytes()) - 1)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def appended(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0" * 64)


def zeroed(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:4096] + bytes(4096) + data[8192:])


DAMAGE: dict[str, Change] = {
    "payload": in_a_payload, "name": in_a_name, "padding": in_the_padding, "end": at_the_end, "cut": cut,
    "appended": appended, "zeroed": zeroed,
}  # fmt: skip
LIKE_AN_EDIT = {("dcp", "appended")}
"""Behind what the metadata refer to: the checksums inside agree, and no content was lost."""


def verdicts(path: Path) -> set[str]:
    report: Any = verify([path]).json
    (target,) = report["targets"]
    found = {f["name"] for f in target["findings"] if f["name"] in ("digest-mismatch", "edited-since-sealed")}
    return {"damaged"} if target["integrity"] == "damaged" else {"edited"} if found else {target["integrity"]}


@pytest.mark.parametrize("form", sorted(FORMATS))
@pytest.mark.parametrize("fault", sorted(DAMAGE))
def test_damage_is_called_damage(tmp_path: Path, form: str, fault: str) -> None:
    if fault == "padding" and b"ZZZZ" not in made(tmp_path, form)[1].read_bytes():
        pytest.skip("the format has no padding")
    target, largest = made(tmp_path, form)
    seal(target)
    assert verdicts(target) == {"proved"}
    DAMAGE[fault](largest)
    assert verdicts(target) == {"edited" if (form, fault) in LIKE_AN_EDIT else "damaged"}


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_a_later_save_is_called_an_edit(tmp_path: Path, form: str) -> None:
    target, _ = made(tmp_path, form)
    seal(target)
    made(tmp_path, form, seed=8)
    assert verdicts(target) == {"edited"}
    seal(target)
    assert verdicts(target) == {"proved"}


def edited(form: str) -> dict[str, bytes]:
    """One number changed by somebody who writes the file as its format wants it."""
    tensors = weights()
    data = bytearray(tensors["hidden.bias"].storage.data)
    data[:4] = b"\0\0\x80?"
    tensors["hidden.bias"] = tensor((32,), bytes(data))
    state = {**training_state(), "model": tensors}
    return {
        "torch-zip": {"a.pth": torch_file(state)},
        "torch-legacy": {"a.pth": legacy_file(state)},
        "safetensors": {"a.safetensors": safetensors_file(tensors, {"format": "pt"})},
    }[form]


@pytest.mark.parametrize(
    ("form", "expected"), [("torch-zip", "edited"), ("torch-legacy", "damaged"), ("safetensors", "damaged")]
)
def test_one_edited_number(tmp_path: Path, form: str, expected: str) -> None:
    """Formats without checksums show no difference between an edit of one number and a flipped bit, and say so."""
    target, _ = made(tmp_path, form)
    seal(target)
    for name, data in edited(form).items():
        (tmp_path / name).write_bytes(data)
    assert verdicts(target) == {expected}
    report: Any = verify([target]).json
    messages = [f["message"] for f in report["targets"][0]["findings"] if "sealed" in f["message"]]
    assert any("1 of " in message and "tensors differ" in message for message in messages)
    assert expected == "edited" or any("an edit would look the same" in message for message in messages)


# --- inside ------------------------------------------------------------------------------------------------

INSIDE = ["torch-zip", "safetensors"]


@pytest.mark.parametrize("form", INSIDE)
def test_a_manifest_inside_is_found(tmp_path: Path, form: str) -> None:
    target, _ = made(tmp_path, form)
    before = describe(target)
    assert seal(target, inside=True).exit_code == 0
    assert verdicts(target) == {"proved"}
    report: Any = verify([target]).json
    assert not [f for f in report["targets"][0]["findings"] if f["code"].startswith("CK1")]
    after = describe(target, audit=True)
    assert [e.key for e in after.entries()] == [e.key for e in before.entries()]
    assert not after.damage
    seal(target, inside=True)
    assert describe(target).nbytes == after.nbytes, "a second seal takes the place of the first"
    assert sorted(p.name for p in tmp_path.iterdir()) == [target.name]


@pytest.mark.parametrize("form", INSIDE)
def test_a_sealed_copy(tmp_path: Path, form: str) -> None:
    target, _ = made(tmp_path, form)
    before = target.read_bytes()
    copy = tmp_path / f"copy{target.suffix}"
    seal(target, inside=True, output=copy)
    assert target.read_bytes() == before
    assert verdicts(copy) == {"proved"}


@pytest.mark.parametrize("form", INSIDE)
@pytest.mark.parametrize("fault", ["payload", "name", "cut", "zeroed"])
def test_damage_with_a_manifest_inside(tmp_path: Path, form: str, fault: str) -> None:
    target, _ = made(tmp_path, form)
    seal(target, inside=True)
    DAMAGE[fault](target)
    assert verdicts(target) == {"damaged"}


def test_an_edit_with_a_manifest_inside(tmp_path: Path) -> None:
    """Somebody keeps the manifest and changes tensors or the text beside them."""
    target, _ = made(tmp_path, "safetensors")
    seal(target, inside=True)
    header = json.loads(target.read_bytes()[8 : 8 + int.from_bytes(target.read_bytes()[:8], "little")])
    kept = header["__metadata__"][INSIDE_KEY]
    target.write_bytes(safetensors_file(weights(seed=8), {"format": "pt", INSIDE_KEY: kept}))
    assert verdicts(target) == {"edited"}
    target.write_bytes(safetensors_file(weights(), {"format": "tf", INSIDE_KEY: kept}))
    assert verdicts(target) in ({"edited"}, {"damaged"})
    target.write_bytes(safetensors_file(weights(), {"format": "pt", INSIDE_KEY: kept}))
    assert verdicts(target) == {"proved"}


@pytest.mark.parametrize("text", ["", "{}", "[", "null", '{"schema":"ckpttool.manifest/1"}'])
def test_a_hostile_manifest_inside(tmp_path: Path, text: str) -> None:
    target = tmp_path / "a.safetensors"
    target.write_bytes(safetensors_file(weights(), {INSIDE_KEY: text}))
    report: Any = verify([target]).json
    assert "manifest-malformed" in {f["name"] for f in report["targets"][0]["findings"]}


@pytest.mark.parametrize("form", ["torch-legacy", "sharded", "dcp"])
def test_formats_without_room_say_so(tmp_path: Path, form: str) -> None:
    target, _ = made(tmp_path, form)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(UsageError, match="no room for a manifest; without --inside it goes beside"):
        seal(target, inside=True)
    assert before == {p.name: p.read_bytes() for p in tmp_path.iterdir()}


def test_a_files_own_sha256_cannot_stand_inside_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--sha256"):
        seal(made(tmp_path, "torch-zip")[0], inside=True, sha256=True)


def test_the_real_loaders_read_what_is_sealed_inside(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    state = {"w": torch.randn(300, 7), "v": torch.arange(5), "step": 3}
    torch.save(state, tmp_path / "a.pth")
    seal(tmp_path / "a.pth", inside=True)
    for wishes in ({}, {"mmap": True}):
        back = torch.load(tmp_path / "a.pth", weights_only=True, **wishes)
        assert torch.equal(back["w"], state["w"])
        assert back["step"] == 3
    safetensors.save_file({"w": state["w"], "v": state["v"]}, tmp_path / "a.safetensors", {"format": "pt"})
    seal(tmp_path / "a.safetensors", inside=True)
    loaded = safetensors.load_file(tmp_path / "a.safetensors")
    assert torch.equal(loaded["w"], state["w"])
    assert torch.equal(loaded["v"], state["v"])
    import ckpttool

    assert torch.equal(ckpttool.load(tmp_path / "a.pth")["w"], state["w"])


def test_a_stale_manifest_does_not_travel(tmp_path: Path) -> None:
    """What is written from a sealed file has no manifest until it is sealed itself."""
    from ckpttool.verbs.convert import convert

    for form in INSIDE:
        target, _ = made(tmp_path, form)
        seal(target, inside=True)
        convert(target, tmp_path / f"{form}.safetensors")
        assert describe(tmp_path / f"{form}.safetensors").metadata.get("sealed_inside") is None


# --- where it is found, and what it may not do ---------------------------------------------------------------


def test_any_spelling_of_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, _ = made(tmp_path, "safetensors")
    seal(target)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "last.safetensors").symlink_to(target.name)
    (tmp_path / "sub" / "best.safetensors").symlink_to(f"../{target.name}")
    for name in (target.name, f"./{target.name}", f"sub/../{target.name}", "last.safetensors", "sub/best.safetensors"):
        assert verdicts(Path(name)) == {"proved"}, name
        report: Any = verify([name]).json
        assert report["targets"][0]["integrity"] == "proved", name


@pytest.mark.parametrize("form", ["sharded", "dcp"])
def test_files_that_came_later_are_reported(tmp_path: Path, form: str) -> None:
    target, _ = made(tmp_path, form)
    seal(target)
    (tmp_path / "later.txt").write_text("x")
    (tmp_path / ".hidden").write_text("x")
    report: Any = verify([target]).json
    (found,) = (f for f in report["targets"][0]["findings"] if f["name"] == "not-sealed")
    assert found["severity"] == "info"
    assert found["facts"]["names"] == ["later.txt"]
    assert report["exit_code"] == 0


def test_a_name_never_leads_out(tmp_path: Path) -> None:
    target, _ = made(tmp_path, "safetensors")
    seal(target)
    (tmp_path.parent / "outside").write_bytes(b"x")
    text = json.loads(sidecar(str(target)).read_bytes())
    for name in ("/etc/hostname", "../outside", "C:\\x", "\\x", "a/../../outside", "", ".", "x\0y", "\ud800"):
        text["files"][0]["name"] = name
        sidecar(str(target)).write_text(json.dumps(text))
        report: Any = verify([target]).json
        assert "sealed-file-missing" in {f["name"] for f in report["targets"][0]["findings"]}, name


@pytest.mark.parametrize(
    "change",
    [
        {"block": 1, "blocks": [], "bytes": 0},
        {"block": 0},
        {"bytes": 1 << 62},
        {"bytes": -1},
        {"bytes": 1.5},
        {"blocks": {}},
        {"shape": 3},
    ],
)
def test_a_hostile_manifest_costs_nothing(tmp_path: Path, change: dict[str, Any]) -> None:
    target, _ = made(tmp_path, "safetensors")
    seal(target)
    text = json.loads(sidecar(str(target)).read_bytes())
    if "shape" in change:
        text["tensors"][0].update(change)
    else:
        text["files"][0].update(change)
    sidecar(str(target)).write_text(json.dumps(text))
    report: Any = verify([target]).json
    assert "manifest-malformed" in {f["name"] for f in report["targets"][0]["findings"]}


def test_a_file_named_a_million_times_is_read_never(tmp_path: Path) -> None:
    target, _ = made(tmp_path, "safetensors")
    seal(target)
    text = json.loads(sidecar(str(target)).read_bytes())
    text["files"] *= 20_000
    sidecar(str(target)).write_text(json.dumps(text))
    report: Any = verify([target]).json
    assert "manifest-malformed" in {f["name"] for f in report["targets"][0]["findings"]}


def test_a_manifest_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    target, _ = made(tmp_path, "safetensors")
    place = sidecar(str(target))
    with place.open("wb") as file:
        file.truncate(LIMIT + 1)
    report: Any = verify([target]).json
    assert "manifest-malformed" in {f["name"] for f in report["targets"][0]["findings"]}


def test_a_manifest_of_a_fifo_or_a_folder(tmp_path: Path) -> None:
    target, _ = made(tmp_path, "safetensors")
    seal(target)
    text = json.loads(sidecar(str(target)).read_bytes())
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        text["files"][0]["name"] = name
        sidecar(str(target)).write_text(json.dumps(text))
        report: Any = verify([target]).json
        assert "sealed-file-missing" in {f["name"] for f in report["targets"][0]["findings"]}


def test_the_manifest_is_small(tmp_path: Path) -> None:
    """A line for each tensor: about 150 bytes and its name."""
    target, _ = made(tmp_path, "torch-zip")
    seal(target)
    place = sidecar(str(target))
    lines = place.read_text().splitlines()
    tensors = len(json.loads(place.read_text())["tensors"])
    assert len(lines) < tensors + 20
    assert place.name.endswith(SIDECAR)


def test_a_file_that_grows_while_it_is_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ckpttool.measure import one_pass

    target, _ = made(tmp_path, "safetensors")
    real = one_pass.sealed_at_once

    def meddled(*arguments: Any, **wishes: Any) -> Any:
        found = real(*arguments, **wishes)
        os.utime(target, ns=(1, 1))
        return found

    monkeypatch.setattr(one_pass, "sealed_at_once", meddled)
    with pytest.raises(UsageError, match="written to while it was sealed"):
        seal(target)
    assert not sidecar(str(target)).exists()
