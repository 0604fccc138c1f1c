"""Sealed checkpoints that are not what they were, or whose manifest is not."""

from __future__ import annotations

import json
import random

from ckpttool.manifest import SIDECAR
from ckpttool.testing.faults.registry import Files, folder_fault
from ckpttool.testing.faults.safetensors import split
from ckpttool.testing.samples import training_state, weights
from ckpttool.testing.writers import safetensors_bytes, safetensors_file, torch_file

SEALED = "sealed"
SEALED_ZIP = "sealed-zip"
SEALED_FOLDER = "sealed-folder"


def _content(files: Files) -> str:
    return next(name for name in files if not name.endswith(SIDECAR))


def _manifest(files: Files) -> str:
    return next(name for name in files if name.endswith(SIDECAR))


@folder_fault("sealed-flip", "digest-mismatch", SEALED)
def flipped(files: Files, rng: random.Random) -> Files:
    """A bit of a sealed safetensors file flipped, which nothing else would show."""
    name = _content(files)
    header, body = split(files[name])
    at = rng.randrange(len(body) // 4) * 4  # the lowest bits of a number: no check of values sees it
    changed = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
    return {**files, name: safetensors_bytes(json.dumps(header, separators=(",", ":")), changed)}


@folder_fault("saved-after-sealing", "edited-since-sealed", SEALED_ZIP)
def saved_again(files: Files, rng: random.Random) -> Files:
    """Training went on and saved under the same name, and nobody sealed the file again."""
    return {**files, _content(files): torch_file(training_state(seed=rng.randrange(100, 200)))}


@folder_fault("exported-after-sealing", "edited-since-sealed", SEALED)
def exported_again(files: Files, rng: random.Random) -> Files:
    """A tensor was taken out of a sealed safetensors file."""
    fewer = dict(weights())
    fewer.pop("hidden.bias")
    return {**files, _content(files): safetensors_file(fewer, {"format": "pt"})}


@folder_fault("manifest-cut", "manifest-malformed", SEALED, SEALED_ZIP)
def manifest_cut(files: Files, rng: random.Random) -> Files:
    """The manifest was copied in part."""
    name = _manifest(files)
    return {**files, name: files[name][: rng.randrange(1, len(files[name]) - 2)]}


@folder_fault("manifest-counts", "manifest-malformed", SEALED)
def manifest_counts(files: Files, rng: random.Random) -> Files:
    """The manifest's numbers contradict each other."""
    name = _manifest(files)
    made = json.loads(files[name])
    made["files"][0]["bytes"] += 1 << 30
    return {**files, name: json.dumps(made).encode()}


@folder_fault("sealed-part-gone", "sealed-file-missing", SEALED)
def part_gone(files: Files, rng: random.Random) -> Files:
    """A file that was sealed with the others is not there."""
    name = _manifest(files)
    made = json.loads(files[name])
    made["files"].append({**made["files"][0], "name": "tokenizer.json"})
    return {**files, name: json.dumps(made).encode()}


@folder_fault("came-after-sealing", "not-sealed", SEALED_FOLDER)
def came_later(files: Files, rng: random.Random) -> Files:
    """A file was put into a sealed folder."""
    return {**files, "generation_config.json": b"{}"}
