"""Which files of a folder make up one checkpoint, told from their names; of a lone ``.metadata`` from its start.

Sources: transformers ``trainer.py`` (``_save_checkpoint``), accelerate ``checkpointing.py``
(``save_accelerator_state``), DeepSpeed ``engine.py`` (``_get_ckpt_name``, ``_get_zero_ckpt_name``),
torch ``distributed/checkpoint/filesystem.py``, meta-llama/llama ``generation.py`` (``Llama.build``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ckpttool.errors import Unreadable
from ckpttool.formats.natural import natural
from ckpttool.frozen import dataclass

TRAINER = "transformers Trainer"
ACCELERATE = "accelerate"
DEEPSPEED = "DeepSpeed"
DCP = "torch distributed checkpoint"
META = "Meta Llama"

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".pkl", ".tar")
"""Names of checkpoint files, and of the parts of a composite one."""

STATE_FILES = frozenset({"trainer_state.json", "train_state.json", "config.json", "adapter_config.json", "params.json"})
"""JSON files of a composite checkpoint that are read as parts of its tree."""

INDEX = ".index.json"

_CHECKPOINT = re.compile(r"checkpoint-\d+")
_WEIGHTS = re.compile(r"(pytorch_model|model|adapter_model|diffusion_pytorch_model)\b.*\.(bin|safetensors|json)")
_ACCELERATE = re.compile(r"random_states_\d+\.pkl")
_DEEPSPEED = re.compile(r"(.*_)?mp_rank_\d+(_\d+)?_(model|optim)_states\.pt|.*_optim_states\.pt")
_SHARD = re.compile(r"(.*)-\d{5}-of-\d{5}(\.\w+)", re.DOTALL)
_DCP_MARK = b"torch.distributed.checkpoint"
_RANK = re.compile(r"consolidated\.\d+\.pth")
_TAG = re.compile(r"global_step\d+")


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder's files and subfolders by name, in natural order. Links to folders are left out."""

    path: Path
    files: tuple[str, ...]
    folders: tuple[str, ...]


def look(path: Path) -> Folder:
    """List a folder; raises ``Unreadable``."""
    try:
        with os.scandir(path) as found:
            entries = sorted(found, key=lambda entry: natural(entry.name))
        folders = tuple(e.name for e in entries if e.is_dir(follow_symlinks=False))
        files = tuple(e.name for e in entries if e.is_file() or (e.is_symlink() and not Path(e.path).exists()))
    except OSError as error:
        raise Unreadable(str(path), error.strerror or str(error)) from error
    return Folder(path, files, folders)


def layout_of(folder: Folder) -> str:
    """The framework whose checkpoint this folder is as a whole; empty if it is none."""
    names = set(folder.files)
    if _any(r".*\.distcp", names) or (".metadata" in names and _says(folder.path / ".metadata", _DCP_MARK)):
        return DCP
    if any(_DEEPSPEED.fullmatch(name) for name in names):
        return DEEPSPEED
    if sum(_RANK.fullmatch(name) is not None for name in names) > 1:
        return META
    weights = any(_WEIGHTS.fullmatch(name) for name in names)
    tagged = any(_TAG.fullmatch(name) for name in folder.folders)
    named = _CHECKPOINT.fullmatch(folder.path.name) is not None
    if any(_ACCELERATE.fullmatch(name) for name in names) or ("optimizer.bin" in names and weights):
        return TRAINER if "trainer_state.json" in names else ACCELERATE
    if "trainer_state.json" in names and (weights or named or "optimizer.pt" in names or tagged):
        return TRAINER
    if ("optimizer.pt" in names or named) and (weights or tagged):
        return TRAINER
    return ""


def _says(path: Path, mark: bytes) -> bool:
    """Whether a mark is among a file's first bytes."""
    try:
        with path.open("rb") as file:
            return mark in file.read(256)
    except OSError:
        return False


def _any(pattern: str, names: Iterable[str]) -> bool:
    return any(re.fullmatch(pattern, name) for name in names)


def parts_of(folder: Folder) -> tuple[str, ...]:
    """The files that make up a composite checkpoint: shards stand behind their index, which comes instead."""
    indexed = shards_in(folder.files)
    return tuple(
        name
        for name in folder.files
        if name not in indexed
        and (name.lower().endswith((*SUFFIXES, INDEX)) or name in STATE_FILES)
        and not name.startswith(".")
    )


def shards_in(names: Sequence[str]) -> set[str]:
    """The files whose names say that they are shards of an index which is there too."""
    families = {name.removesuffix(INDEX) for name in names if name.endswith(INDEX)}
    found = ((name, _SHARD.fullmatch(name)) for name in names)
    return {name for name, match in found if match and match[1] + match[2] in families}


def inner_folders(folder: Folder, layout: str) -> tuple[str, ...]:
    """Subfolders that belong to a composite checkpoint: DeepSpeed's, inside a Trainer's or accelerate's."""
    if layout not in (TRAINER, ACCELERATE):
        return ()
    return tuple(name for name in folder.folders if _TAG.fullmatch(name) or name == "pytorch_model")
