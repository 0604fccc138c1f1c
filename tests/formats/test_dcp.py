"""Distributed checkpoints: the tree, the chunks, what is missing; torch's own writer and loader as the oracle."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ckpttool.errors import CkpttoolError, Unreadable
from ckpttool.formats import describe
from ckpttool.formats.nesting import nested
from ckpttool.formats.slices import Slice
from ckpttool.model import Checkpoint, Mapping, Node, Sequence, Tensor, Value
from ckpttool.profiles import lay_out
from ckpttool.source import Memory
from ckpttool.testing import dcp
from ckpttool.testing.plain import Global, tensor
from ckpttool.testing.samples import SHAPES, distributed_state
from ckpttool.tree import lookup
from ckpttool.verbs.convert import convert
from ckpttool.verbs.diff import diff
from ckpttool.verbs.latest import latest
from ckpttool.verbs.migrate import migrate
from ckpttool.verbs.seal import seal
from ckpttool.verbs.verify import verify


def put(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def sample(ranks: int = 2) -> dict[str, bytes]:
    return dcp.dcp_files(distributed_state(), lambda _, found: dcp.rows(found, ranks), ranks=ranks)


def rules_of(folder: Path) -> set[str]:
    targets: Any = verify([folder]).json["targets"]
    return {finding["name"] for finding in targets[0]["findings"]}


def tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    return {entry.key: found for entry, found in checkpoint.tensors()}


# --- the tree --------------------------------------------------------------------------------------------


def test_a_chunked_tensor_comes_whole_and_others_as_they_are(tmp_path: Path) -> None:
    found = tensors(describe(put(tmp_path, sample())))
    assert {name: found[f"model.{name}"].shape for name in SHAPES} == SHAPES
    whole = found["model.embed.weight"]
    assert (whole.layout, [name for name, _ in whole.parts]) == ("chunked", ["0,0", "24,0"])
    assert found["optimizer.state.hidden.bias.step"].layout == "strided"


def test_sections_and_states_are_found_by_name(tmp_path: Path) -> None:
    checkpoint = describe(put(tmp_path, sample()))
    layout = lay_out(checkpoint)
    assert {section.name for section in layout.sections} >= {"weights", "optimizer", "counters"}
    (optimizer,) = layout.optimizers
    assert (optimizer.named, [slot.name for slot in optimizer.slots]) == ("fqn", list(SHAPES))
    assert layout.writer is not None
    assert layout.writer.framework == "torch.distributed.checkpoint"
    assert layout.readiness.level == "resumable"


def test_weights_at_the_root_beside_a_flat_optimizer_are_told_apart(tmp_path: Path) -> None:
    """As torchtitan saves."""
    state = distributed_state()
    moments = state["optimizer"]["state"]
    flat: dict[str, Any] = {f"state.{n}.{k}": v for n, one in moments.items() for k, v in one.items()}
    settings = {k: v for k, v in state["optimizer"]["param_groups"][0].items() if k != "params"}
    flat |= {f"param_groups.{n}.{k}": v for n in moments for k, v in settings.items()}
    titan = {**state["model"], "optimizer": flat, "train_state": {"step": tensor((), bytes(8), "int64")}}
    layout = lay_out(describe(put(tmp_path, dcp.dcp_files(titan))))
    assert [name for name, _ in layout.parameters] == list(SHAPES)
    (optimizer,) = layout.optimizers
    assert (optimizer.kind, optimizer.named) == ("AdamW", "fqn")
    assert [slot.name for slot in optimizer.slots] == list(SHAPES)
    assert layout.readiness.level == "resumable"


def test_values_that_are_no_tensors_are_part_of_the_tree(tmp_path: Path) -> None:
    state = {"meta": {"epoch": 3, "words": ["a", "b"], "mixed": [tensor((2,), bytes(8)), {"k": None}]}}
    checkpoint = describe(put(tmp_path, dcp.dcp_files(state)))
    meta = lookup(checkpoint, checkpoint.root, "meta")
    epoch, words, mixed = (checkpoint.nodes[lookup(checkpoint, meta, k) or 0] for k in ("epoch", "words", "mixed"))
    assert epoch == Value(3)
    assert isinstance(words, Sequence)
    assert len(words.items) == 2
    assert isinstance(mixed, Sequence)
    assert isinstance(checkpoint.nodes[mixed.items[0]], Tensor)
    assert isinstance(checkpoint.nodes[mixed.items[1]], Mapping)


def test_without_paths_names_stay_flat(tmp_path: Path) -> None:
    files = dcp.edited(sample(), lambda fields: fields.update(planner_data=None))
    checkpoint = describe(put(tmp_path, files))
    assert checkpoint.root is not None
    root = checkpoint.nodes[checkpoint.root]
    assert isinstance(root, Mapping)
    assert "model.embed.weight" in [checkpoint.nodes[key].value for key in root.keys]  # type: ignore[union-attr]


def test_paths_that_lead_nowhere_leave_their_names_flat() -> None:
    nodes: list[Node] = [Value(0), Value(1), Value(2), Value(3)]
    paths: list[tuple[str, tuple[str | int, ...], int]] = [
        ("a", ("a",), 0), ("a.b", ("a", "b"), 1), ("x", ("l", 10**9), 2), ("y", (3,), 3),
    ]  # fmt: skip
    root, flat = nested(paths, nodes)
    top = nodes[root]
    assert isinstance(top, Mapping)
    assert flat == ["a.b", "y"]
    assert [nodes[key] for key in top.keys] == [Value("a"), Value("l"), Value("a.b"), Value("y")]
    assert len(nodes) < 20


def test_every_place_is_one_in_the_whole_file(tmp_path: Path) -> None:
    folder = put(tmp_path, sample())
    checkpoint = describe(folder)
    for storage in checkpoint.storages:
        assert storage.span is not None
        assert storage.span.nbytes == storage.nbytes
    for extent in checkpoint.extents:
        if extent.name.endswith("/version"):
            data = Path(extent.span.source).read_bytes()
            assert data[extent.span.start : extent.span.stop] == b"3\n"


def test_a_slice_is_a_source_of_its_own() -> None:
    for size in (100, 200_000):
        data = bytes(i % 251 for i in range(size))
        part = Slice(Memory(data), 10, size - 10)
        assert part.size == size - 20
        assert part.read(0, 5) == data[10:15]
        assert part.read(part.size - 2, 9) == data[size - 12 : size - 10]
        assert bytes(part.window(3, 10**9)) == data[13 : size - 10]
        buffer = memoryview(bytearray(8))
        assert part.readinto(part.size - 3, buffer) == 3
        assert part.readinto(part.size + 3, buffer) == 0


def test_archives_of_one_form_are_told_as_they_are_read(tmp_path: Path, fixtures_dir: Path) -> None:
    for folder in (put(tmp_path, sample(3)), fixtures_dir / "dcp", fixtures_dir / "dcp_two_ranks"):
        quick, thorough = describe(folder), describe(folder, audit=True)
        assert (quick.damage, thorough.damage) == ((), ())
        assert quick == thorough
        assert quick.metadata == thorough.metadata


@pytest.mark.parametrize("where", ["head", "tail", "first checksum"])
def test_an_archive_that_differs_from_its_form_is_read_for_itself(tmp_path: Path, where: str) -> None:
    files = sample(1)
    spots = [e for e in describe(put(tmp_path / "a", files)).extents if e.name.endswith("/data/0")]
    last = next(e for e in reversed(spots) if e.span.nbytes == spots[-1].span.nbytes)
    at = {"head": last.span.start - 1, "tail": last.span.stop + 60, "first checksum": last.span.stop + 5}[where]
    data = bytearray(files["__0_0.distcp"])
    data[at] ^= 4
    found = describe(put(tmp_path / "b", {**files, "__0_0.distcp": bytes(data)}))
    thorough = describe(tmp_path / "b", audit=True)
    assert found.nodes == thorough.nodes
    assert [e.span for e in found.extents] == [e.span for e in thorough.extents]
    targets: Any = verify([tmp_path / "b"]).json["targets"]
    assert targets[0]["findings"]


# --- what is missing -------------------------------------------------------------------------------------


def test_a_lost_file_leaves_the_others_readable(tmp_path: Path) -> None:
    folder = put(tmp_path, sample())
    (folder / "__1_0.distcp").unlink()
    checkpoint = describe(folder)
    assert tensors(checkpoint)["model.embed.weight"].shape == SHAPES["embed.weight"]
    (lost,) = [damage for damage in checkpoint.damage if damage.rule == "chunk-missing"]
    assert lost.where == "__1_0.distcp"
    with pytest.raises(CkpttoolError, match="damaged"):
        convert(folder, tmp_path / "out.pth")


def test_the_temporary_metadata_serves_where_only_its_rename_lacked(tmp_path: Path) -> None:
    folder = put(tmp_path / "a", sample())
    (folder / ".metadata").rename(folder / ".metadata.tmp")
    assert len(tensors(describe(folder))) == len(tensors(describe(put(tmp_path / "b", sample()))))
    assert "unfinished-save" in rules_of(folder)


def test_without_metadata_archives_are_found_where_they_lie(tmp_path: Path) -> None:
    folder = put(tmp_path, sample())
    count = len([e for e in describe(folder).extents if e.name.endswith("data.pkl")])
    (folder / ".metadata").unlink()
    checkpoint = describe(folder)
    assert checkpoint.metadata["salvaged"] is True
    assert checkpoint.metadata["slices"] == count
    assert {"unfinished-save", "chunk-missing"} <= rules_of(folder)
    assert all("@" in key for key in tensors(checkpoint))


def test_metadata_of_each_rank_is_one_checkpoint(tmp_path: Path) -> None:
    whole = sample()
    half = {0: "embed", 1: "hidden"}
    files = {name: data for name, data in whole.items() if name != ".metadata"}
    for rank, gone in half.items():

        def change(fields: dict[str, Any], gone: str = gone) -> None:
            entries = fields["state_dict_metadata"]
            for name in [name for name in entries if gone in name]:
                del entries[name]

        files[f"__{rank}.metadata"] = dcp.edited(whole, change)[".metadata"]
    checkpoint = describe(put(tmp_path / "ranks", files))
    assert not checkpoint.damage
    assert tensors(checkpoint).keys() == tensors(describe(put(tmp_path / "one", whole))).keys()


def test_a_folder_with_another_metadata_file_is_none(tmp_path: Path) -> None:
    (tmp_path / ".metadata").write_bytes(b"{}")
    with pytest.raises(Unreadable, match="no checkpoint"):
        describe(tmp_path)


def test_compressed_slices_are_said_to_be_so(tmp_path: Path) -> None:
    def change(fields: dict[str, Any]) -> None:
        for place in dcp.places(fields, "model.out.weight"):
            place["transform_descriptors"] = ["stream.zstd/1"]

    checkpoint = describe(put(tmp_path, dcp.edited(sample(), change)))
    assert [d.rule for d in checkpoint.damage] == ["unreadable-part"] * 2
    assert tensors(checkpoint)["model.out.weight"].shape == SHAPES["out.weight"]


@pytest.mark.parametrize("field", ["state_dict_metadata", "storage_data", "planner_data", "storage_meta"])
@pytest.mark.parametrize("value", [None, 7, "x", [1], {1: 2}, {"a": {"b": (1, 2)}}, Global("torch", "float32")])
def test_odd_metadata_is_reported_and_read_as_far_as_it_goes(tmp_path: Path, field: str, value: Any) -> None:
    files = dcp.edited(sample(), lambda fields: fields.update({field: value}))
    checkpoint = describe(put(tmp_path, files))
    assert checkpoint.format == "dcp"
    verify([tmp_path])


def test_nothing_in_the_metadata_runs(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Runs:
        def __reduce__(self) -> Any:
            return Path.touch, (marker,)

    folder = put(tmp_path / "step", sample())
    (folder / ".metadata").write_bytes(pickle.dumps({"torch.distributed.checkpoint": Runs()}, 4))
    verify([folder])
    assert not marker.exists()


def test_a_run_of_steps_is_judged_by_its_metadata(tmp_path: Path) -> None:
    for step in (100, 200, 300):
        put(tmp_path / f"step-{step}", sample())
    (tmp_path / "step-300" / ".metadata").unlink()
    found: Any = latest(tmp_path).json
    assert found["path"] == str(tmp_path / "step-200")
    assert [one["path"] for one in found["skipped"]] == [str(tmp_path / "step-300")]
    seal(tmp_path / "step-200")
    targets: Any = verify([tmp_path / "step-200"]).json["targets"]
    assert targets[0]["integrity"] == "proved"


def test_what_is_not_a_number_is_told_of_the_whole(tmp_path: Path) -> None:
    import struct

    values = [1.0] * 64
    values[37] = float("nan")
    data = struct.pack("<64f", *values)
    state = {"model": {"w.weight": tensor((8, 8), data)}}
    folder = put(tmp_path, dcp.dcp_files(state, lambda _, t: dcp.rows(t, 3)))
    targets: Any = verify([folder]).json["targets"]
    (nan,) = [f for f in targets[0]["findings"] if f["name"] == "nan"]
    assert nan["where"] == "model.w.weight"


def test_another_world_size_is_no_difference(tmp_path: Path) -> None:
    a, b = put(tmp_path / "a", sample(2)), put(tmp_path / "b", sample(5))
    assert diff(a, b).exit_code == 0
    convert(a, tmp_path / "out.pth", verify=True)
    convert(b, tmp_path / "out.safetensors")
    assert diff(b, tmp_path / "out.pth").exit_code == 0
    report = diff(a, tmp_path / "out.safetensors", only=["model.*"])
    assert report.exit_code == 0, report.json


def test_a_migration_starts_from_chunks(tmp_path: Path) -> None:
    folder = put(tmp_path / "step", sample(3))
    migrate(folder, tmp_path / "out.pth", preset="wrap-ddp")
    assert diff(folder, tmp_path / "out.pth").exit_code == 1
    migrate(tmp_path / "out.pth", tmp_path / "back.pth", preset="wrap-ddp", reverse=True)
    assert diff(folder, tmp_path / "back.pth").exit_code == 0


# --- torch as the oracle ---------------------------------------------------------------------------------


def saved(torch: ModuleType, folder: Path, state: dict[str, Any], boxes: Any) -> None:
    """Save with torch's own writer and a planner that cuts tensors as it is told."""
    import torch.distributed.checkpoint as distributed
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
    from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
    from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

    class Cutting(DefaultSavePlanner):
        def create_local_plan(self) -> Any:
            plan = super().create_local_plan()
            items = []
            for item in plan.items:
                cut = boxes.get(item.index.fqn)
                if cut is None:
                    items.append(item)
                    continue
                value = self.state_dict[item.index.fqn]
                for number, (start, shape) in enumerate(cut):
                    chunk = ChunkStorageMetadata(torch.Size(start), torch.Size(shape))
                    written = TensorWriteData(chunk, TensorProperties.create_from_tensor(value), value.size())
                    index = MetadataIndex(item.index.fqn, start, number)
                    items.append(WriteItem(index, WriteItemType.SHARD, None, written))
            self.plan = type(plan)(items, plan.storage_data, plan.planner_data)
            return self.plan

        def lookup_object(self, index: Any) -> Any:
            value = super().lookup_object(index) if index.fqn not in boxes else self.state_dict[index.fqn]
            for start, shape in boxes.get(index.fqn, []):
                if tuple(index.offset) == tuple(start):
                    return value[tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))]
            return value

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        distributed.save(state, checkpoint_id=folder, planner=Cutting(), no_dist=True)


def loaded(folder: Path, file: Path) -> None:
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp_to_torch_save(folder, file)


BOXES = {
    "m.rows": [((0, 0), (3, 5)), ((3, 0), (4, 5))],
    "m.columns": [((0, 0), (4, 2)), ((0, 2), (4, 5))],
    "m.grid": [((0, 0), (2, 3)), ((2, 0), (3, 3)), ((0, 3), (2, 1)), ((2, 3), (3, 1))],
    "m.odd": [((0, 0), (1, 4)), ((1, 0), (3, 1)), ((1, 1), (3, 3))],
    "m.turned": [((0, 0), (3, 4)), ((3, 0), (3, 4))],
    "m.half": [((0,), (2,)), ((2,), (1,))],
    "m.deep": [((0, 0, 0), (2, 1, 3)), ((0, 1, 0), (2, 2, 3))],
}


def state_of(torch: ModuleType) -> dict[str, Any]:
    drawn = torch.Generator().manual_seed(3)

    def random(*shape: int) -> Any:
        return torch.randn(*shape, generator=drawn)

    tensors = {
        "rows": random(7, 5), "columns": random(4, 7).double(), "grid": random(5, 4).to(torch.complex64),
        "odd": random(4, 4).to(torch.bfloat16), "turned": random(4, 6).t(), "half": random(3).half(),
        "deep": random(2, 3, 3).to(torch.float8_e4m3fn), "scalar": torch.tensor(7), "empty": torch.zeros(0, 3),
        "whole": random(3, 3), "unsigned": torch.arange(6).to(torch.uint16).reshape(2, 3),
    }  # fmt: skip
    return {"m": tensors, "n": {"epoch": 3, "list": [1, {"a": torch.ones(2)}], "tuple": (1, None), "text": "x"}}


def test_what_torch_wrote_is_what_torch_loads(tmp_path: Path, torch: ModuleType) -> None:
    folder = tmp_path / "step"
    saved(torch, folder, state_of(torch), BOXES)
    checkpoint = describe(folder)
    assert not checkpoint.damage
    assert {f"m.{k[2:]}" for k in BOXES} == {k for k, t in tensors(checkpoint).items() if t.layout == "chunked"}
    loaded(folder, tmp_path / "oracle.pth")
    report = diff(folder, tmp_path / "oracle.pth")
    assert report.exit_code == 0, report.json


@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_a_converted_checkpoint_is_what_torch_makes_of_it(tmp_path: Path, torch: ModuleType, form: str) -> None:
    folder = tmp_path / "step"
    saved(torch, folder, state_of(torch), BOXES)
    out = tmp_path / f"out.{form}"
    convert(folder, out, sections=[] if form == "pth" else ["weights"], verify=True)
    if form == "pth":
        loaded(folder, tmp_path / "oracle.pth")
        ours, theirs = torch.load(out)["m"], torch.load(tmp_path / "oracle.pth", weights_only=False)["m"]
    else:
        library = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
        ours = library.load_file(out)
        theirs = state_of(torch)["m"]
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (value.dtype, value.shape), name
        same = (ours[name].contiguous().flatten().view(torch.uint8), value.contiguous().flatten().view(torch.uint8))
        assert torch.equal(*same), name


def test_fixtures_of_one_and_of_two_ranks_are_sound(fixtures_dir: Path, tmp_path: Path, torch: ModuleType) -> None:
    for name in ("dcp", "dcp_two_ranks"):
        loaded(fixtures_dir / name, tmp_path / f"{name}.pth")
        assert diff(fixtures_dir / name, tmp_path / f"{name}.pth").exit_code == 0
        assert not {"unlisted-data", "chunk-hole", "unsafe-global"} & rules_of(fixtures_dir / name)
