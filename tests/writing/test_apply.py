"""Nothing gets its name before it has been read back; whatever fails, what was there is as it was."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from ckpttool.draft import Copied, Draft, Held, Input, Made, draft_of
from ckpttool.errors import UsageError, WriteFailed
from ckpttool.expressions import Form, Leaf
from ckpttool.formats import describe
from ckpttool.model import Span, Tensor
from ckpttool.testing.samples import training_state, weights
from ckpttool.testing.writers import legacy_file, safetensors_file, torch_file
from ckpttool.verbs.diff import diff
from ckpttool.writing.apply import apply
from ckpttool.writing.outputs import format_for


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "run.pt"
    path.write_bytes(torch_file(training_state()))
    return path


def drafted(path: Path) -> Draft:
    return draft_of(describe(path))


def computed(draft: Draft) -> Draft:
    """The same draft with every tensor computed: read as it is, to be written as it is."""
    checkpoint, contents = draft.checkpoint, list(draft.contents)
    for node in checkpoint.nodes:
        if isinstance(node, Tensor) and node.storage is not None:
            given = Input("x", node, checkpoint.storages[node.storage])
            contents[node.storage] = Made(Leaf("x"), (given,), Form(node.dtype, node.shape))
    return Draft(checkpoint, tuple(contents))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- what is written ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["b.pt", "b.safetensors", "b"])
def test_computed_and_copied_come_to_the_same(source: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    copied = apply(drafted(source), tmp_path / "one" / name, verify=True)
    made = apply(computed(drafted(source)), tmp_path / "two" / name)
    assert (copied.compared, made.compared) == (copied.copied, 0)
    assert made.computed > copied.computed
    assert made.nbytes == copied.nbytes == copied.copied + copied.computed
    for one, two in zip(copied.files, made.files, strict=True):
        assert Path(one).read_bytes() == Path(two).read_bytes()


def test_in_place_keeps_the_old_file(source: Path) -> None:
    before = source.read_bytes()
    written = apply(drafted(source), source, overwrite=True)
    assert written.backup == f"{source}.bak"
    assert Path(written.backup).read_bytes() == before
    assert diff(source, written.backup).data["identical"] is True
    again = apply(drafted(source), source, overwrite=True, backup=False)
    assert again.backup is None
    assert names(source.parent) == ["run.pt", "run.pt.bak"]


def test_in_place_through_a_link(source: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "last.pt"
    link.symlink_to(source)
    written = apply(drafted(source), link, overwrite=True)
    assert written.backup == f"{source}.bak"
    assert link.is_symlink()


def test_another_file_is_replaced_only_when_asked(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "other.pt"
    target.write_bytes(b"precious")
    with pytest.raises(WriteFailed, match="exists already"):
        apply(drafted(source), target)
    assert target.read_bytes() == b"precious"
    assert apply(drafted(source), target, overwrite=True).backup is None
    kept = apply(drafted(source), target, overwrite=True, backup=True).backup
    assert kept == f"{target}.bak"


def test_the_source_is_only_read(source: Path, tmp_path: Path) -> None:
    before = source.read_bytes(), source.stat().st_mtime_ns
    for name in ("a.pt", "b.safetensors", "c"):
        apply(drafted(source), tmp_path / name, verify=True)
    assert (source.read_bytes(), source.stat().st_mtime_ns) == before


def test_progress_ends_where_it_should(source: Path, tmp_path: Path) -> None:
    for verify in (False, True):
        seen: list[tuple[int, int]] = []
        apply(drafted(source), tmp_path / f"{verify}.safetensors", verify=verify,
              progress=lambda done, total, seen=seen: seen.append((done, total)))  # type: ignore[misc]  # fmt: skip
        assert seen == sorted(seen)
        assert seen[-1][0] == seen[-1][1]


# --- what is read back -------------------------------------------------------------------------------------


def corrupt(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Make the output differ from what was meant, at one byte, beneath everything that writes."""
    from ckpttool.writing.durable import Replacement

    original = Replacement.flush

    def flush(self: Replacement) -> None:
        original(self)
        if os.fstat(self.fileno()).st_size > at:
            byte = os.pread(self.fileno(), 1, at)
            os.pwrite(self.fileno(), bytes([byte[0] ^ 1]), at)
            monkeypatch.setattr(Replacement, "flush", original)

    monkeypatch.setattr(Replacement, "flush", flush)


@pytest.mark.parametrize("name", ["out.pt", "out.safetensors", "out"])
def test_any_wrong_byte_of_what_was_computed_is_found(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    draft = computed(drafted(source))
    good = apply(draft, tmp_path / f"good{name.removeprefix('out')}")
    size = Path(good.files[0]).stat().st_size
    before = names(tmp_path)
    for at in (0, 9, size // 3, size // 2, size - 1):
        corrupt(monkeypatch, at)
        with pytest.raises(WriteFailed, match="nothing was replaced"):
            apply(draft, tmp_path / name)
        assert names(tmp_path) == before


def test_a_wrong_copy_is_found_with_verify(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.safetensors"
    target.write_bytes(b"precious")
    corrupt(monkeypatch, describe(source).nbytes // 2)
    with pytest.raises(WriteFailed, match=r"the copy at byte [\d,]+ differs from byte [\d,]+ of .*run\.pt"):
        apply(drafted(source), target, overwrite=True, verify=True)
    assert target.read_bytes() == b"precious"


def test_damage_of_the_source_is_found_with_verify(source: Path, tmp_path: Path) -> None:
    """A bit of a tensor has flipped since its checksum was recorded; the headers are sound."""
    storage = next(s for s in describe(source).storages if s.nbytes > 1000)
    assert storage.span is not None
    data = bytearray(source.read_bytes())
    data[storage.span.start + 5] ^= 1
    source.write_bytes(data)
    for name in ("out.pt", "out.safetensors"):
        with pytest.raises(WriteFailed, match=r"are damaged: recorded CRC 0x\w+, computed 0x\w+"):
            apply(drafted(source), tmp_path / name, verify=True)
    assert names(tmp_path) == ["run.pt"]


def test_headers_are_compared_with_the_draft(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that writes well what was not meant."""
    from ckpttool.writing import safetensors, torch_zip

    other = tmp_path / "other.pt"
    other.write_bytes(torch_file(weights()))
    wrong = drafted(other)
    for module, name in ((torch_zip, "out.pt"), (safetensors, "out.safetensors")):
        write = module.write
        monkeypatch.setattr(module, "write", lambda _, sink, write=write, **__: write(wrong, sink))
        with pytest.raises(WriteFailed, match="does not read back as meant"):
            apply(drafted(source), tmp_path / name)
    assert names(tmp_path) == ["other.pt", "run.pt"]


def test_sources_that_end_early(source: Path, tmp_path: Path) -> None:
    draft = drafted(source)
    source.write_bytes(source.read_bytes()[:5000])
    for name in ("out.pt", "out.safetensors", "out"):
        with pytest.raises(WriteFailed, match="ended"):
            apply(draft, tmp_path / name)
    assert names(tmp_path) == ["run.pt"]


def test_content_of_any_origin(tmp_path: Path) -> None:
    """Bytes at hand, and ranges of several files laid end to end."""
    (tmp_path / "run.safetensors").write_bytes(safetensors_file(weights()))
    draft = drafted(tmp_path / "run.safetensors")
    (tmp_path / "x").write_bytes(b"abcdef")
    size = draft.contents[-1].nbytes
    assert size % 4 == 0
    spans = (*(Span(str(tmp_path / "x"), i % 4, i % 4 + 2) for i in range(size // 2)),)
    held = struct.pack("<B", 7) * draft.contents[0].nbytes
    mixed = replace(draft, contents=(Held(held), *draft.contents[1:-1], Copied(spans)))
    apply(mixed, tmp_path / "out.safetensors", verify=True)
    data = (tmp_path / "out.safetensors").read_bytes()
    found = describe(tmp_path / "out.safetensors")
    first, last = found.storages[0].span, found.storages[-1].span
    assert first is not None
    assert last is not None
    assert data[first.start : first.stop] == held
    assert data[last.start : last.stop] == b"".join(b"abcdef"[i % 4 : i % 4 + 2] for i in range(size // 2))


# --- which format --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("x.pt", "", "torch"),
        ("x.PTH", "torch-legacy", "torch-legacy"),
        ("x.tar", "torch-tar", "torch"),
        ("x.safetensors", "torch-legacy", "safetensors"),
        ("x.safetensors.index.json", "", "sharded"),
        ("x.bin.index.json", "", "sharded-bin"),
        ("run", "", "sharded"),
        ("run.d/", "", "sharded"),
    ],
)
def test_the_name_says_the_format(name: str, source: str, expected: str) -> None:
    assert format_for(name, None, source) == expected


@pytest.mark.parametrize(
    ("name", "wanted", "why"),
    [
        ("x.onnx", None, "says no format"),
        ("x.pt", "sharded", "name a folder or an index"),
        ("run", "torch", "name one file"),
        ("x.pt", "onnx", "no format is called 'onnx'"),
    ],
)
def test_what_makes_no_sense(name: str, wanted: str | None, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        format_for(name, wanted)


def test_a_legacy_file_stays_one(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(legacy_file(weights()))
    assert apply(drafted(tmp_path / "a.pt"), tmp_path / "b.pt").format == "torch-legacy"
    assert describe(tmp_path / "b.pt").format == "torch-legacy"
