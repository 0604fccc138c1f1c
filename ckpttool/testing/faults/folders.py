"""Folders of files that do not fit together: shards, indexes, names, commit markers."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from ckpttool.testing.faults.registry import Files, Inapplicable, folder_fault
from ckpttool.testing.faults.safetensors import entries, split
from ckpttool.testing.writers import safetensors_bytes

SHARDED = "sharded"
Index = dict[str, Any]


def index_name(files: Files) -> str:
    """The name of the folder's index."""
    found = [name for name in files if name.endswith(".index.json")]
    if not found:
        raise Inapplicable("the folder has no index")
    return found[0]


def _indexed(files: Files, change: Callable[[Index], Any]) -> Files:
    name = index_name(files)
    index = json.loads(files[name])
    change(index)
    return {**files, name: json.dumps(index, indent=2).encode()}


def shards(files: Files) -> list[str]:
    """The names of the shards that the index refers to."""
    return sorted(set(json.loads(files[index_name(files)])["weight_map"].values()))


def _without(files: Files, gone: str) -> Files:
    return {name: data for name, data in files.items() if name != gone}


@folder_fault("lost-shard", "missing-shard", SHARDED)
def lost_shard(files: Files, rng: random.Random) -> Files:
    """One of the files was not copied."""
    return _without(files, rng.choice(shards(files)))


@folder_fault("cut-shard", "truncated", SHARDED)
def cut_shard(files: Files, rng: random.Random) -> Files:
    """One of the files was copied in part."""
    name = rng.choice(shards(files))
    return {**files, name: files[name][: len(files[name]) // 2]}


@folder_fault("headless-shard", "shard-damaged", SHARDED)
def headless_shard(files: Files, rng: random.Random) -> Files:
    """Of one of the files not even the header arrived."""
    name = rng.choice(shards(files))
    return {**files, name: files[name][:60]}


@folder_fault("stray-shard", "unreferenced-shard", SHARDED)
def stray_shard(files: Files, rng: random.Random) -> Files:
    """A shard of an older save lies beside the others."""
    name = shards(files)[0]
    return {**files, name.replace("00001", "00009", 1): files[name]}


@folder_fault("renamed-key", "key-not-in-shard", SHARDED)
def renamed_key(files: Files, rng: random.Random) -> Files:
    """The index knows a tensor by another name than its shard."""

    def change(index: Index) -> None:
        key = rng.choice(sorted(index["weight_map"]))
        index["weight_map"][f"{key}_old"] = index["weight_map"].pop(key)

    return _indexed(files, change)


@folder_fault("unlisted-key", "key-not-in-index", SHARDED)
def unlisted_key(files: Files, rng: random.Random) -> Files:
    """A shard holds a tensor that the index does not list."""
    return _indexed(files, lambda index: index["weight_map"].pop(rng.choice(sorted(index["weight_map"]))))


@folder_fault("key-in-two-shards", "duplicate-shard-key", SHARDED)
def doubled_key(files: Files, rng: random.Random) -> Files:
    """Two shards hold the same tensor."""
    first, second = shards(files)[:2]
    if not first.endswith(".safetensors"):
        raise Inapplicable("the shards are no safetensors files")
    header, body = split(files[first])
    other, more = split(files[second])
    entry = entries(other)[0]
    name = next(n for n, e in other.items() if e is entry)
    start, stop = entry["data_offsets"]
    header[name] = {**entry, "data_offsets": [len(body), len(body) + stop - start]}
    return {**files, first: safetensors_bytes(json.dumps(header), body + more[start:stop])}


@folder_fault("wrong-total", "total-size", SHARDED)
def wrong_total(files: Files, rng: random.Random) -> Files:
    """The index states another size than the tensors have."""
    return _indexed(files, lambda index: index["metadata"].update(total_size=index["metadata"]["total_size"] + 8))


@folder_fault("wrong-count", "shard-count", SHARDED)
def wrong_count(files: Files, rng: random.Random) -> Files:
    """The file names count more shards than there are."""
    last = shards(files)[-1]
    count = len(shards(files))
    renamed = last.replace(f"-of-{count:05d}", f"-of-{count + 1:05d}")
    changed = _indexed(files, lambda index: index["weight_map"].update(
        {key: renamed for key, file in index["weight_map"].items() if file == last}
    ))  # fmt: skip
    return {renamed if name == last else name: data for name, data in changed.items()}


@folder_fault("climbing-shard", "shard-path", SHARDED)
def climbing_shard(files: Files, rng: random.Random) -> Files:
    """The index names a file outside of its folder."""

    def change(index: Index) -> None:
        key = rng.choice(sorted(index["weight_map"]))
        index["weight_map"][key] = "../../etc/passwd"

    return _indexed(files, change)


@folder_fault("broken-index", "index-malformed", SHARDED)
def broken_index(files: Files, rng: random.Random) -> Files:
    """The index is no JSON."""
    name = index_name(files)
    return {**files, name: files[name][:-20]}


# --- one file and its name -------------------------------------------------------------------------------


def _only(files: Files) -> tuple[str, bytes]:
    if len(files) != 1:
        raise Inapplicable("the folder holds more than one file")
    return next(iter(files.items()))


@folder_fault("temporary-name", "in-progress", "file")
def temporary_name(files: Files, rng: random.Random) -> Files:
    """The file still has the name that its writer gave it until it is complete."""
    name, data = _only(files)
    return {f"{name}.tmp": data}


@folder_fault("name-hash", "file-name-hash", "file")
def name_hash(files: Files, rng: random.Random) -> Files:
    """The digits in the file's name are not those of its content."""
    _, data = _only(files)
    return {f"model-{rng.getrandbits(32):08x}.pth": data}


@folder_fault("pointer-in-run", "unreadable-part", "run")
def pointer_in_run(files: Files, rng: random.Random) -> Files:
    """One of the files is still a Git LFS pointer."""
    if "optimizer.pt" not in files:
        raise Inapplicable("the folder has no optimizer.pt")
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{0:064x}\nsize 9\n"
    return {**files, "optimizer.pt": pointer.encode()}


@folder_fault("model-alone", "framework-note", "run")
def model_alone(files: Files, rng: random.Random) -> Files:
    """The framework was told to save the model only."""
    if "trainer_state.json" not in files:
        raise Inapplicable("the folder has no trainer_state.json")
    kept = ("model", "trainer_state", "config", "training_args")
    return {name: data for name, data in files.items() if name.startswith(kept)}


@folder_fault("no-commit-marker", "unfinished-save", "run")
def no_commit_marker(files: Files, rng: random.Random) -> Files:
    """The file that the framework writes last is missing."""
    return _without(files, "trainer_state.json")
