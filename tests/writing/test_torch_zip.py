"""Archives come out as torch writes them, byte for byte where the tree keeps enough."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zipfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ckpttool.draft import Copied, Draft, Held, draft_of
from ckpttool.dtypes import DTYPES
from ckpttool.editing import Editor
from ckpttool.errors import WriteFailed
from ckpttool.formats import describe, describe_source
from ckpttool.formats.name_hash import name_hash
from ckpttool.model import Checkpoint, Checksum, Mapping, Span, Storage, Tensor, Value
from ckpttool.source import Memory
from ckpttool.testing.plain import tensor
from ckpttool.testing.rewriting import contents, rewritten, says, written
from ckpttool.testing.samples import FILES
from ckpttool.testing.writers import torch_file
from ckpttool.writing import torch_zip
from ckpttool.writing.streams import Sink

FLOAT = DTYPES["float32"]

# Equal strings that stand twice (tests/formats/test_pickle_emitter.py).
EQUAL_STRINGS = {
    "mp_rank_00_model_states.pt", "dtensor.pth", "ema_alias.pth", "layouts.pth", "mmengine.pth", "python_values.pth",
    "checkpoint-3.pth.tar", "training_args.bin", "training.pth", "training_next.pth",
}  # fmt: skip
OLDER = {"torch113.pth", "torch113_training.pth", "rezipped.pth", "notopfolder.pth", "deflated.pth"}
"""Written without alignment, byte order or ids: what torch writes today has them."""
WITHOUT_CHECKSUMS = {"nocrc.pth"}


def archives(folder: Path) -> list[Path]:
    found = [p for p in sorted(folder.rglob("*")) if p.is_file() and "damaged" not in p.parts]
    found = [p for p in found if p.read_bytes()[:2] == b"PK" and p.suffix != ".distcp"]
    return [p for p in found if describe(p).format == "torch-zip"]


def rewrite(source: Path, target: Path) -> bytes:
    with target.open("w+b") as file, Sink(file) as sink:
        torch_zip.write(draft_of(describe(source)), sink)
    return target.read_bytes()


def test_fixtures_come_out_byte_for_byte(fixtures_dir: Path, tmp_path: Path) -> None:
    other = {path.name for path in archives(fixtures_dir) if rewrite(path, tmp_path / path.name) != path.read_bytes()}
    assert other <= EQUAL_STRINGS | OLDER | WITHOUT_CHECKSUMS
    assert len(archives(fixtures_dir)) > len(other) + 25


def test_what_comes_out_is_sound_and_says_the_same(fixtures_dir: Path, tmp_path: Path) -> None:
    for path in archives(fixtures_dir):
        data = rewrite(path, tmp_path / path.name)
        assert says(data) == says(path.read_bytes()), path
        found = describe_source(Memory(data), audit=True)
        left = {d.rule for d in found.damage} - {d.rule for d in describe(path, audit=True).damage}
        assert left == set(), path


def test_the_names_of_records_hash_as_torch_hashes_them(fixtures_dir: Path) -> None:
    with zipfile.ZipFile(fixtures_dir / "training.pth") as opened:
        names = [name.partition("/")[2] for name in opened.namelist()]
        assert opened.read(opened.namelist()[-1])[:20] == b"%020d" % name_hash(names[:-1])


# --- the container ---------------------------------------------------------------------------------------


def made(*sizes: int, **facts: Any) -> Draft:
    """A state dict of float32 tensors of these numbers of elements, its bytes at hand."""
    nodes: list[Any] = [Value(None)]
    for place, size in enumerate(sizes):
        nodes += [Value(f"w{place}"), Tensor(FLOAT, (size,), (1,), 0, place)]
    nodes[0] = Mapping("OrderedDict", tuple(range(1, len(nodes), 2)), tuple(range(2, len(nodes), 2)))
    storages = tuple(Storage(str(i), FLOAT, 4 * size) for i, size in enumerate(sizes))
    checkpoint = Checkpoint("x", facts.pop("format", "safetensors"), tuple(nodes), 0, storages, **facts)
    return Draft(checkpoint, tuple(Held(struct.pack(f"<{n}f", *range(n))) for n in sizes))


def records(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        return {name.partition("/")[2]: opened.read(name) for name in opened.namelist()}


def test_records_stand_in_torchs_order_aligned_and_checked() -> None:
    data = written(torch_zip, made(3, 0, 100))
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert opened.testzip() is None
        assert [name.partition("/")[2] for name in opened.namelist()] == [
            "data.pkl", ".format_version", ".storage_alignment", "byteorder", "data/0", "data/1", "data/2", "version",
            ".data/serialization_id",
        ]  # fmt: skip
    found = describe_source(Memory(data), audit=True)
    assert found.damage == ()
    assert [extent.span.start % 64 for extent in found.extents] == [0] * 9
    assert records(data)["byteorder"] == b"little"


def test_the_same_draft_gives_the_same_bytes() -> None:
    assert written(torch_zip, made(3, 4)) == written(torch_zip, made(3, 4))


def test_the_folder_is_the_sources_or_the_outputs_name(tmp_path: Path) -> None:
    assert written(torch_zip, made(1))[30:].startswith(b"archive/data.pkl")
    assert written(torch_zip, made(1), folder="other")[30:].startswith(b"other/data.pkl")
    with (tmp_path / "named.v2.pth").open("w+b") as file, Sink(file) as sink:
        torch_zip.write(made(1), sink)
    assert (tmp_path / "named.v2.pth").read_bytes()[30:].startswith(b"named.v2/data.pkl")
    kept = torch_file({"w": tensor((1,), bytes(4))}, folder="mine")
    assert rewritten(torch_zip, kept)[30:].startswith(b"mine/data.pkl")


@pytest.mark.parametrize("prefix", ["..", "a/b", "a\\b", "c:", "bell\a", ""])
def test_a_folder_that_leads_elsewhere_is_not_kept(prefix: str) -> None:
    draft = made(1, format="torch-zip", metadata={"prefix": prefix})
    assert written(torch_zip, draft)[30:].startswith(b"archive/data.pkl")


def test_the_sources_alignment_is_kept() -> None:
    draft = made(3, 5, format="torch-zip", metadata={"prefix": "a", "storage_alignment": "4096"})
    data = written(torch_zip, draft)
    assert {extent.span.start % 4096 for extent in describe_source(Memory(data)).extents} == {0}
    assert records(data)[".storage_alignment"] == b"4096"
    odd = made(3, format="torch-zip", metadata={"prefix": "a", "storage_alignment": "0"})
    assert records(written(torch_zip, odd))[".storage_alignment"] == b"64"


def test_keys_that_are_no_numbers_are_numbered_anew() -> None:
    draft = made(1, 2, 3)
    storages = tuple(replace(s, key=key) for s, key in zip(draft.checkpoint.storages, "a ../b a".split(), strict=True))
    data = written(torch_zip, replace(draft, checkpoint=replace(draft.checkpoint, storages=storages)))
    assert [name for name in records(data) if name.startswith("data/")] == ["data/0", "data/1", "data/2"]
    assert says(data) == says(written(torch_zip, draft))


def test_storages_that_the_tree_does_not_mention_are_left_out() -> None:
    draft = made(1, 2)
    nodes = (Mapping("dict", (1,), (2,)), *draft.checkpoint.nodes[1:])
    data = written(torch_zip, replace(draft, checkpoint=replace(draft.checkpoint, nodes=nodes)))
    assert [name for name in records(data) if name.startswith("data/")] == ["data/0"]


def test_recorded_checksums_are_carried_over_unseen() -> None:
    data = bytearray(FILES["torch-zip"]())
    largest = max(describe_source(Memory(bytes(data))).storages, key=lambda s: s.nbytes)
    assert largest.span is not None
    data[largest.span.start] ^= 1  # damage that only the checksum tells of
    again = rewritten(torch_zip, bytes(data))
    with zipfile.ZipFile(io.BytesIO(again)) as opened:
        assert (opened.testzip() or "").endswith(f"data/{largest.key}")


def test_checksums_are_computed_where_none_is_recorded_or_content_is_turned() -> None:
    draft = made(3, 4)
    swapped = tuple(replace(s, swapped=i == 0) for i, s in enumerate(draft.checkpoint.storages))
    turned = Held(draft.contents[0].data[::-1])  # type: ignore[union-attr]
    checkpoint = replace(draft.checkpoint, storages=swapped)
    data = written(torch_zip, Draft(checkpoint, (turned, draft.contents[1])))
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert opened.testzip() is None


def test_deflated_records_are_stored() -> None:
    from ckpttool.testing.zips import Record, archive, read_records

    plain = FILES["torch-zip"]()
    packed = archive([replace(r, deflated=True) if isinstance(r, Record) else r for r in read_records(plain)])
    data = rewritten(torch_zip, packed)
    assert records(data) == records(rewritten(torch_zip, plain))
    assert {extent.method for extent in describe_source(Memory(data)).extents} == {"stored"}


def test_a_span_that_is_cut_short_is_refused() -> None:
    draft = made(2)
    short = Copied((Span("<memory>", 0, 8),), Checksum("crc32", 1))
    with pytest.raises(WriteFailed, match="ended after 4 of the 8 bytes"):
        written(torch_zip, Draft(draft.checkpoint, (short,)), Memory(bytes(4)))


# --- byte order ------------------------------------------------------------------------------------------


def big_endian(*, mixed: bool = False) -> Draft:
    draft = made(3, 2)
    swapped = tuple(replace(s, swapped=i == 0 or not mixed) for i, s in enumerate(draft.checkpoint.storages))
    contents = [Held(struct.pack(">3f", 1, 2, 3)), Held(struct.pack("<2f" if mixed else ">2f", 4, 5))]
    return Draft(replace(draft.checkpoint, storages=swapped), tuple(contents))


def test_a_big_endian_checkpoint_stays_so() -> None:
    data = written(torch_zip, big_endian())
    assert records(data)["byteorder"] == b"big"
    assert records(data)["data/0"] == struct.pack(">3f", 1, 2, 3)
    assert all(storage.swapped for storage in describe_source(Memory(data)).storages)


def test_a_mixed_one_becomes_little_endian() -> None:
    data = written(torch_zip, big_endian(mixed=True))
    assert records(data)["byteorder"] == b"little"
    assert records(data)["data/0"] == struct.pack("<3f", 1, 2, 3)
    assert records(data)["data/1"] == struct.pack("<2f", 4, 5)


def test_what_is_computed_comes_in_the_files_order() -> None:
    pytest.importorskip("numpy")
    from ckpttool.draft import Input, Made
    from ckpttool.expressions import Form, Leaf

    draft = big_endian()
    old = draft.checkpoint
    source = Memory(struct.pack(">3f", 1, 2, 3), "x")
    held = replace(old.storages[0], span=None, inline=struct.pack(">3f", 1, 2, 3))
    node = old.nodes[2]
    assert isinstance(node, Tensor)
    content = Made(Leaf("w"), (Input("w", node, held),), Form(FLOAT, (3,)))
    for mixed, order in ((False, ">"), (True, "<")):
        base = big_endian(mixed=mixed)
        contents = (content, base.contents[1])
        storages = (replace(base.checkpoint.storages[0], swapped=False), base.checkpoint.storages[1])
        draft = Draft(replace(base.checkpoint, storages=storages), contents)
        assert records(written(torch_zip, draft, source))["data/0"] == struct.pack(f"{order}3f", 1, 2, 3)


# --- what is refused or lost -----------------------------------------------------------------------------


def test_torchscript_is_refused(fixtures_dir: Path) -> None:
    with pytest.raises(WriteFailed, match="TorchScript"):
        written(torch_zip, draft_of(describe(fixtures_dir / "script.pt")))


def test_strange_records_and_headers_are_counted_as_lost() -> None:
    from ckpttool.testing.zips import Record, archive, read_records

    data = archive([*read_records(FILES["torch-zip"]()), Record("archive/extra/notes.txt", b"hello")])
    draft = draft_of(describe_source(Memory(data)))
    assert [loss.key for loss in torch_zip.losses(draft)] == ["extra/notes.txt"]
    assert torch_zip.losses(draft_of(describe_source(Memory(FILES["torch-zip"]())))) == ()
    header = made(1, metadata={"metadata": {"format": "pt"}})
    assert [loss.key for loss in torch_zip.losses(header)] == ["__metadata__.format"]


def test_keys_are_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking at all keys for each storage would take hours for 100,000 of them."""
    asked: list[Draft] = []
    real = torch_zip.keeps_keys
    monkeypatch.setattr(torch_zip, "keeps_keys", lambda draft: asked.append(draft) or real(draft))
    written(torch_zip, made(1, 2, 3))
    assert len(asked) == 1


def test_progress_counts_bytes() -> None:
    seen: list[int] = []
    written(torch_zip, made(100, 200), progress=seen.append)
    assert {400, 800} <= set(seen)


# --- torch itself ----------------------------------------------------------------------------------------


def saved(torch: ModuleType, value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


@pytest.mark.parametrize("sizes", [[], [0], [1], [15, 16, 17], [1000] * 30, [1] * 1200], ids=len)
def test_files_of_torch_come_out_byte_for_byte(torch: ModuleType, sizes: list[int]) -> None:
    value = OrderedDict((f"layers.{i}.w", torch.full((n,), float(i))) for i, n in enumerate(sizes))
    data = saved(torch, {"model": value, "tied": list(value.values())[:1], "epoch": 3})
    assert rewritten(torch_zip, data) == data


def test_a_training_state_of_torch_comes_out_byte_for_byte(torch: ModuleType) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(30, 20), torch.nn.BatchNorm1d(20), torch.nn.Linear(20, 2))
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(4, 30)).sum().backward()
    optimizer.step()
    state = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}
    data = saved(torch, state)
    assert rewritten(torch_zip, data) == data


def test_old_torch_reads_it_too(torch: ModuleType, fixtures_dir: Path, tmp_path: Path) -> None:
    """Where the system has a torch of before 2.0, it loads what is written."""
    python = Path("/usr/bin/python3")
    code = "import sys, torch; assert torch.__version__ < '2'; print(len(torch.load(sys.argv[1])))"
    rewrite(fixtures_dir / "mlp.pth", tmp_path / "mlp.pth")
    if not python.exists() or Path(sys.executable).resolve() == python.resolve():
        pytest.skip("no other Python here")
    done = subprocess.run([python, "-c", code, tmp_path / "mlp.pth"], capture_output=True, text=True, check=False)
    if "AssertionError" in done.stderr or "No module named" in done.stderr:
        pytest.skip("the system has no old torch")
    assert done.stdout.strip() == str(len(torch.load(fixtures_dir / "mlp.pth")))


def test_loads_wherever_the_source_does(torch: ModuleType, fixtures_dir: Path, tmp_path: Path) -> None:
    from ckpttool.testing.oracle import differences

    count = 0
    for path in archives(fixtures_dir):
        rewrite(path, tmp_path / path.name)
        for how in ({"weights_only": True}, {"weights_only": True, "mmap": True}):
            loaded = load(torch, path, **how)
            if loaded is None:
                continue
            again = load(torch, tmp_path / path.name, **how)
            assert again is not None, path
            source = Memory((tmp_path / path.name).read_bytes())
            if isinstance(loaded, (dict, list, tuple)) and path.name not in ("jagged.pth", "dtensor.pth"):
                assert differences(describe_source(source), source, again) == [], path
                count += 1
    assert count > 50


def load(torch: ModuleType, path: Path, **how: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.load(path, **how)
        except Exception:
            return None


@pytest.mark.parametrize("name", ["mlp.safetensors", "dtypes.safetensors", "sharded", "torch_tar.pth", "sharded_bin"])
def test_checkpoints_of_other_formats_load(torch: ModuleType, fixtures_dir: Path, tmp_path: Path, name: str) -> None:
    checkpoint = describe(fixtures_dir / name)
    with (tmp_path / "out.pth").open("w+b") as file, Sink(file) as sink:
        torch_zip.write(draft_of(checkpoint), sink)
    loaded = torch.load(tmp_path / "out.pth", weights_only=True, mmap=True)
    wanted = {entry.key: t for entry, t in checkpoint.tensors()}
    assert {k: (str(v.dtype)[6:], tuple(v.shape)) for k, v in loaded.items()} == {
        k: (t.dtype.name, t.shape) for k, t in wanted.items()
    }
    assert contents(checkpoint) == contents(describe(tmp_path / "out.pth"))


def test_an_edited_state_dict_loads(torch: ModuleType) -> None:
    data = saved(torch, OrderedDict(a=torch.arange(6.0), b=torch.ones(2, 2)))
    source = Memory(data)
    checkpoint = describe_source(source)
    editor = Editor(checkpoint)
    old = checkpoint.nodes[checkpoint.root or 0]
    assert isinstance(old, Mapping)
    fresh = editor.storage(checkpoint.storages[0], Held(struct.pack("<2f", 7, 8)))
    new = editor.put(Tensor(FLOAT, (2,), (1,), 0, fresh))
    keys = (editor.value("renamed"), editor.value("added"))
    editor.replace(checkpoint.root or 0, replace(old, keys=keys, values=(old.values[1], new)))
    loaded = torch.load(io.BytesIO(written(torch_zip, editor.finish(), source)), weights_only=True)
    assert {key: value.tolist() for key, value in loaded.items()} == {"renamed": [[1, 1], [1, 1]], "added": [7, 8]}


@pytest.mark.slow
def test_files_beyond_4_gib_are_those_of_torch(torch: ModuleType, tmp_path: Path) -> None:
    big = torch.zeros((1 << 32) + 64, dtype=torch.uint8)
    torch.save({"big": big, "small": torch.ones(3), "after": torch.ones(5)}, tmp_path / "a.pt")
    del big
    checkpoint = describe(tmp_path / "a.pt")
    with (tmp_path / "b.pt").open("w+b") as file, Sink(file) as sink:
        torch_zip.write(draft_of(checkpoint), sink)
    assert subprocess.run(["cmp", tmp_path / "a.pt", tmp_path / "b.pt"], check=False).returncode == 0
    assert contents(checkpoint)[1:] == contents(describe(tmp_path / "b.pt"))[1:]
