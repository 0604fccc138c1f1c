"""Compiles the package's C files where there is a C compiler; without one the wheel is pure and as correct.

Each ``_name.c`` becomes ``_name.so`` beside it, loaded with ``ctypes``, so it is bound to no version of Python.
"""

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


class CompileHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the libraries to wheels and editable installs. ``CKPTTOOL_NATIVE=0`` in the environment leaves them out."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        editable = version == "editable"
        self._scratch = tempfile.TemporaryDirectory(prefix="ckpttool-")
        for number, source in enumerate(sorted(root.joinpath("ckpttool").rglob("_*.c"))):
            library = source.with_suffix(".so")
            built = library if editable else Path(self._scratch.name, f"{number}.so")
            if not compiled(source, built):
                self.app.display_info(f"no C compiler: the package is built without its {source.stem}")
                continue
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
            if not editable:
                build_data["force_include"][str(built)] = library.relative_to(root).as_posix()

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self._scratch.cleanup()

    def clean(self, versions: list[str]) -> None:
        for source in Path(self.root, "ckpttool").rglob("_*.c"):
            source.with_suffix(".so").unlink(missing_ok=True)


def compiled(source: Path, library: Path) -> bool:
    """Whether a C file could be compiled for this machine."""
    command = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), "")
    suits = sys.platform != "win32" and sys.byteorder == "little" and struct.calcsize("P") == 8
    if not command or not suits or os.environ.get("CKPTTOOL_NATIVE") == "0":
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
