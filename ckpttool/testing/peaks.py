"""How much memory this process ever had."""

from __future__ import annotations

import sys
from pathlib import Path


def peak_megabytes() -> float:
    """Peak resident memory of this process in MiB; 0 where the platform does not say.

    Linux's ``ru_maxrss`` starts from the peak of the process that forked it (``exec_mmap``); ``VmHWM`` does not.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        return _of_usage()


def _of_usage() -> float:
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024
