"""Every way to break a resume that a processor can show, on purpose: ``--inject NAME``. Each is a few lines.

The table in the documentation is made from the decorators: the causes that a fault stands for, the first part that
differs from an unbroken run, the first loss that does (``+0`` is that of the first step after it), when it strikes.
"""

from __future__ import annotations

from ckpttool.trainer.faults import counters, data, environment, model, optimizer, ranks, rng
from ckpttool.trainer.faults.registry import FAULTS, Fault, Faults

for _section in (data, optimizer, model, counters, rng, environment, ranks):  # as the documentation has them
    for _name in [name for name, found in FAULTS.items() if found.act.__module__ == _section.__name__]:
        FAULTS[_name] = FAULTS.pop(_name)

NOT_HERE = {
    "R4": "the size of a CUDA generator's state: it takes a GPU, and another driver",
    "E1": "another torch, numpy or processor: a resume notices by itself and says so. On one machine, resume with "
    "`ATEN_CPU_CAPABILITY=default`, which takes the wide instructions away",
}
"""Causes that one process on a CPU cannot show by itself, and why."""

__all__ = ["FAULTS", "NOT_HERE", "Fault", "Faults"]
