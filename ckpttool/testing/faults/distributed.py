"""Distributed checkpoints whose metadata and data files do not fit together."""

from __future__ import annotations

import random
from typing import Any

from ckpttool.testing import dcp
from ckpttool.testing.faults.registry import Files, Inapplicable, folder_fault
from ckpttool.testing.plain import Call, Global
from ckpttool.testing.writers import torch_file

DCP = "dcp"


def data_files(files: Files) -> list[str]:
    """The names of the ranks' files."""
    return sorted(name for name in files if name.endswith(".distcp"))


def _cut(fields: dict[str, Any], rng: random.Random) -> str:
    """A tensor of several chunks."""
    entries: dict[str, Any] = fields["state_dict_metadata"]
    found = [name for name, entry in entries.items() if len((entry.state or {}).get("chunks", ())) > 1]
    if not found:
        raise Inapplicable("no tensor has several chunks")
    return rng.choice(sorted(found))


@folder_fault("lost-rank", "chunk-missing", DCP)
def lost_rank(files: Files, rng: random.Random) -> Files:
    """One rank's file was not copied."""
    gone = rng.choice(data_files(files))
    return {name: data for name, data in files.items() if name != gone}


@folder_fault("short-rank", "chunk-missing", DCP)
def short_rank(files: Files, rng: random.Random) -> Files:
    """One rank's file was copied in part."""
    name = rng.choice(data_files(files))
    return {**files, name: files[name][: len(files[name]) // 2]}


@folder_fault("lost-metadata", "unfinished-save", DCP)
def lost_metadata(files: Files, rng: random.Random) -> Files:
    """The job was killed after the ranks wrote and before the metadata."""
    return {name: data for name, data in files.items() if name != dcp.METADATA}


@folder_fault("temporary-metadata", "unfinished-save", DCP)
def temporary_metadata(files: Files, rng: random.Random) -> Files:
    """The job was killed before the metadata got its name."""
    return {f"{name}.tmp" if name == dcp.METADATA else name: data for name, data in files.items()}


@folder_fault("lost-chunk", "chunk-hole", DCP)
def lost_chunk(files: Files, rng: random.Random) -> Files:
    """The metadata does not know of one rank's part of a tensor."""

    def change(fields: dict[str, Any]) -> None:
        listed = dcp.chunks(fields, _cut(fields, rng))
        listed.pop(rng.randrange(len(listed)))

    return dcp.edited(files, change)


@folder_fault("doubled-rows", "chunk-overlap", DCP)
def doubled_rows(files: Files, rng: random.Random) -> Files:
    """A chunk is listed at rows that another one holds."""

    def change(fields: dict[str, Any]) -> None:
        listed = dcp.chunks(fields, _cut(fields, rng))
        row, *rest = listed[-1].state["offsets"].args[0]
        listed[-1].state["offsets"] = dcp.size_of((row - 1, *rest))

    return dcp.edited(files, change)


@folder_fault("shared-bytes", "chunk-overlap", DCP)
def shared_bytes(files: Files, rng: random.Random) -> Files:
    """Two entries claim overlapping bytes of one file."""

    def change(fields: dict[str, Any]) -> None:
        infos = [info.state for info in fields["storage_data"].values()]
        last = max((one for one in infos if one["offset"]), key=lambda one: one["offset"])
        last["offset"] -= 64

    return dcp.edited(files, change)


@folder_fault("other-save", "chunk-mismatch", DCP)
def other_save(files: Files, rng: random.Random) -> Files:
    """The metadata is that of a save with another element type."""

    def change(fields: dict[str, Any]) -> None:
        entry = fields["state_dict_metadata"][_cut(fields, rng)]
        properties = entry.state["properties"]
        properties.state = (Global("torch", "float64"), *properties.state[1:])

    return dcp.edited(files, change)


@folder_fault("overwritten-chunk", "chunk-damaged", DCP)
def overwritten_chunk(files: Files, rng: random.Random) -> Files:
    """Zeros lie where a chunk was."""
    name = data_files(files)[-1]
    places: list[dict[str, Any]] = []
    dcp.edited(files, lambda fields: places.extend(i.state for i in fields["storage_data"].values()))
    one = rng.choice([place for place in places if place["relative_path"] == name])
    start, stop = one["offset"], one["offset"] + one["length"]
    return {**files, name: files[name][:start] + bytes(stop - start) + files[name][stop:]}


@folder_fault("flipped-chunk", "crc-mismatch", DCP)
def flipped_chunk(files: Files, rng: random.Random) -> Files:
    """A bit of one chunk's content flipped."""
    name = data_files(files)[0]
    at = files[name].rindex(b"archive/data/0") - 4096
    local = files[name].rfind(b"archive/data/0FB", 0, at if at > 0 else None)
    local = local if local >= 0 else files[name].index(b"archive/data/0FB")
    fill = int.from_bytes(files[name][local + 16 : local + 18], "little")
    at = local + 18 + fill
    return {**files, name: files[name][:at] + bytes([files[name][at] ^ 8]) + files[name][at + 1 :]}


@folder_fault("stray-rank", "unlisted-data", DCP)
def stray_rank(files: Files, rng: random.Random) -> Files:
    """A file of an older save with more ranks lies beside the others."""
    return {**files, "__7_0.distcp": torch_file([1, 2, 3])}


@folder_fault("climbing-chunk", "shard-path", DCP)
def climbing_chunk(files: Files, rng: random.Random) -> Files:
    """The metadata puts a chunk into a file outside of the folder."""

    def change(fields: dict[str, Any]) -> None:
        next(iter(fields["storage_data"].values())).state["relative_path"] = "../../etc/passwd"

    return dcp.edited(files, change)


@folder_fault("running-metadata", "unsafe-global", DCP)
def running_metadata(files: Files, rng: random.Random) -> Files:
    """The metadata runs a command in whoever loads the checkpoint."""

    def change(fields: dict[str, Any]) -> None:
        fields["planner_data"]["model"] = Call(Global("os", "system"), ("true",))

    return dcp.edited(files, change)


@folder_fault("cut-metadata", "pickle-malformed", DCP)
def cut_metadata(files: Files, rng: random.Random) -> Files:
    """The metadata was copied in part."""
    return {**files, dcp.METADATA: files[dcp.METADATA][:-200]}
