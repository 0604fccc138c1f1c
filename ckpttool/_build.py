"""The build hook that compiles the package's C files, where there is a compiler; without one nothing is lost.

Each ``_name.c`` becomes ``_name.so`` beside it, loaded with ``ctypes`` and so bound to no version of Python.
Used by hatchling (``[tool.hatch.build.hooks.custom]``), for wheels and editable installs alike.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-math-errno")


class CompileHook(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles before the files are collected; a compiler that fails leaves a pure package."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        built = [compiled(source) for source in sorted((root / "ckpttool").rglob("_*.c"))]
        found = [str(path.relative_to(root)) for path in built if path is not None]
        if found:
            build_data["artifacts"].extend(found)
            build_data["pure_python"] = False
            build_data["infer_tag"] = True


def compiled(source: Path) -> Path | None:
    """The shared library made of a C file; None where that is not possible here."""
    compiler = os.environ.get("CC") or next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None or sys.platform == "win32" or os.environ.get("CKPTTOOL_NATIVE") == "0":
        return None
    target = source.with_suffix(".so")
    command = [*shlex.split(compiler), *FLAGS, "-o", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return target if done.returncode == 0 else None
