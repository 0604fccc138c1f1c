"""What a training run's numbers depend on beside its state, to be saved with it."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from ckpttool.saving.save import torch_module
from ckpttool.version import __version__

DECISIVE = ("torch", "numpy", "threads", "machine", "isa", "mkldnn")
"""What may change bits. Another revision of the code may too; but then it is meant."""


def environment() -> dict[str, str | int | bool]:
    """Versions, threads, processor, processes and the code's revision, as plain data for a checkpoint.

    Looks at the commit of the running program's folder once (git, if it is there; else empty). Needs torch.
    """
    torch = torch_module()
    return {
        "ckpttool": __version__, "python": platform.python_version(),
        "torch": str(torch.__version__), "numpy": version("numpy"),
        "threads": torch.get_num_threads(), "machine": platform.machine(),
        "isa": torch.backends.cpu.get_cpu_capability(), "devices": torch.cuda.device_count(),
        "mkldnn": torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled),
        "world_size": int(os.environ.get("WORLD_SIZE", "1")), "revision": _revision(),
    }  # fmt: skip


def environment_changes(saved: Mapping[str, object]) -> list[str]:
    """What may change bits since ``environment()`` was saved: one line for each."""
    now = environment()
    return [f"{key}: saved {saved.get(key)!r}, now {now[key]!r}" for key in DECISIVE if saved.get(key) != now[key]]


@functools.cache
def _revision() -> str:
    command = ["git", "-C", str(Path(sys.argv[0] or ".").resolve().parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
