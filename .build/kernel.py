"""Compiles ckpttool/_kernel.c where there is a C compiler; without one the wheel is pure and as correct."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FLAGS = "-O3 -std=gnu11 -fPIC -shared -ffp-contract=off -fno-math-errno -fno-trapping-math -Wno-psabi".split()


class KernelHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the library to wheels. ``CKPTTOOL_KERNEL=0`` in the environment leaves it out."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        package = Path(self.root, "ckpttool")
        editable = version == "editable"
        self._scratch = tempfile.TemporaryDirectory(prefix="ckpttool-")
        library = (package if editable else Path(self._scratch.name)) / "_kernel.so"
        if not compiled(package / "_kernel.c", library):
            self.app.display_info("no C compiler: the package is built without its compiled kernel")
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
        if not editable:
            build_data["force_include"][str(library)] = "ckpttool/_kernel.so"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self._scratch.cleanup()

    def clean(self, versions: list[str]) -> None:
        Path(self.root, "ckpttool", "_kernel.so").unlink(missing_ok=True)


def compiled(source: Path, library: Path) -> bool:
    """Whether the kernel could be compiled for this machine."""
    command = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), "")
    suits = sys.platform != "win32" and sys.byteorder == "little" and struct.calcsize("P") == 8
    if not command or not suits or os.environ.get("CKPTTOOL_KERNEL") == "0":
        return False
    fresh = library.with_suffix(f".{os.getpid()}")
    run = [*command.split(), *FLAGS, str(source), "-o", str(fresh)]
    try:
        done = subprocess.run(run, capture_output=True, check=False)
    except OSError:
        return False
    if done.returncode == 0:
        fresh.replace(library)  # a process that has the old one loaded keeps it
    return done.returncode == 0
