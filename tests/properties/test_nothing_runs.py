"""Nothing that a file names is imported, executed, opened for writing or started: watched by an audit hook.

The hook runs in a process of its own, with a bound on memory and time, over every hostile sample.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from ckpttool.testing.faults import FAULTS, Fault
from ckpttool.testing.samples import FILES

WATCHED = """
import json, resource, sys
limit = 2 << 30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
from ckpttool.verbs.inspect import inspect
from ckpttool.verbs.verify import verify
import dataclasses, ckpttool.frozen
COMPILING = dataclasses.__file__, ckpttool.frozen.__file__
import ckpttool.measure.bounds, ckpttool.measure.stats, ckpttool.measure.sweep  # NumPy: loaded where needed

good, *paths = json.load(sys.stdin)
for path in (good, *paths[:3]):  # loads what verify itself needs, lazily
    verify([path], jobs=1), inspect(path)

STARTED = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "subprocess.Popen"}
WRITING = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate"}
BUFFERS = {"ctypes.cdata", "ctypes.cdata/buffer"}  # arguments of the compiled pass, which is loaded by now
OURS = ("ckpttool", "numpy", "isal", "encodings", "unicodedata")
BAD = []

def watch(event, args):
    if event == "import":
        name = args[0]
        if name.split(".")[0] not in OURS and name.split(".")[0] not in STANDARD:
            BAD.append(f"import {name}")
    elif event == "open":
        path, mode, flags = args
        if isinstance(flags, int) and flags & 3:
            BAD.append(f"open {path!r} for writing")
    elif event in ("exec", "compile", "pickle.find_class", "marshal.loads"):
        # The import system itself runs modules; what it may import is bounded above.
        # The methods of our own classes are compiled when the first of a kind is made or replaced.
        if not sys._getframe(1).f_code.co_filename.startswith(("<frozen", *COMPILING)):
            BAD.append(f"{event} by {sys._getframe(1).f_code.co_filename}")
    elif event in BUFFERS:
        pass
    elif event in STARTED or event in WRITING or event.startswith(("socket.", "ctypes.")):
        BAD.append(event)

# Modules of the standard library that verify may still load on its way; none that a hostile file asks for.
STANDARD = set("zlib gzip bz2 lzma hashlib xml html json struct tarfile zipfile fnmatch difflib statistics".split())
sys.addaudithook(watch)
for path in paths:
    verify([path], jobs=1)
    inspect(path)
    if BAD:
        sys.exit(f"{path}: {BAD}")
if "--prove" in sys.argv:
    import wave
    open(good + ".tmp", "w").close()
    eval("1")
    sys.exit(str(sorted(set(x.split()[0] for x in BAD))))
"""


def hostile(folder: Path) -> list[str]:
    """A sound file, then every damaged one; those of the corpora too, where there are any."""
    paths = []
    for kind, make in FILES.items():
        good = make()
        faults = [fault for fault in FAULTS.values() if isinstance(fault, Fault) and kind in fault.formats]
        for fault in faults:
            path = folder / f"{kind}-{fault.name}.pth"
            path.write_bytes(fault.apply(good, random.Random(1)))
            paths.append(str(path))
        (folder / f"{kind}.pth").write_bytes(good)
    corpora = os.environ.get("CKPTTOOL_CORPORA")
    if corpora:
        paths += sorted(str(p) for p in Path(corpora).iterdir() if p.suffix in (".pt", ".safetensors"))
    return [str(folder / "torch-zip.pth"), *paths]


def watched(paths: list[str], *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WATCHED, *options],
        input=json.dumps(paths),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="bounds on memory need POSIX")
@pytest.mark.parametrize("stride", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_nothing_that_a_file_names_runs(tmp_path: Path, stride: int) -> None:
    good, *paths = hostile(tmp_path)
    done = watched([good, *paths[:3], *paths[3::stride]])
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.skipif(sys.platform == "win32", reason="bounds on memory need POSIX")
def test_the_watch_can_fail(tmp_path: Path) -> None:
    done = watched(hostile(tmp_path)[:4], "--prove")
    assert done.returncode != 0
    assert all(event in done.stderr for event in ("'import'", "'open'", "'exec'"))
