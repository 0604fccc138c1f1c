"""Random mutations of sound files, and an endurance run that asks for a verdict on each."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ckpttool.testing.peaks import peak_megabytes
from ckpttool.testing.zips import placed
from ckpttool.verbs.verify import verify

VERDICTS = frozenset({"not-a-checkpoint", "damaged", "unsafe", "weights-only", "resumable", "exact"})
SECONDS = 2.0
"""More than this for one small file is a hang."""

_VALUES = (b"\0", b"\xff", b"\xff\xff\xff\x7f", bytes(4), bytes(8), b"\xff" * 8, b"PK\x03\x04", b"PK\x05\x06")


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The file after one mutation: flipped bits, a cut, a piece moved or overwritten, a header edited."""
    changed = bytearray(data)
    rng.choice((_flip, _cut, _splice, _overwrite, _edit_header))(changed, rng)
    return bytes(changed)


def _flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _splice(data: bytearray, rng: random.Random) -> None:
    start, source, length = rng.randrange(len(data)), rng.randrange(len(data)), rng.randrange(1, 64)
    stop = start + length if rng.random() < 0.5 else start
    data[start:stop] = data[source : source + length]


def _overwrite(data: bytearray, rng: random.Random) -> None:
    start, value = rng.randrange(len(data)), rng.choice(_VALUES)
    data[start : start + len(value)] = value


def _edit_header(data: bytearray, rng: random.Random) -> None:
    """A byte of some archive header; in other formats a byte near the start."""
    starts = [place for place in range(len(data) - 4) if data[place : place + 2] == b"PK"] or [0]
    place = min(rng.choice(starts) + rng.randrange(46), len(data) - 1)
    data[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


@dataclass
class Tally:
    """What a batch came to. ``failures`` say how to repeat each; ``megabytes`` is the process's peak."""

    verdicts: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    megabytes: float = 0.0


def run_batch(bases: Mapping[str, bytes], seed: int, count: int) -> Tally:
    """Mutate one of the ``bases`` (sound files by name) ``count`` times and verify each result.

    A failure is an exception, no verdict, more than ``SECONDS``, or a changed byte under a CRC of which no
    error speaks. About 3 ms a file.
    """
    tally = Tally()
    ranges = {name: _covered(data) for name, data in bases.items()}
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        for number in range(count):
            rng = random.Random(f"{seed}/{number}")
            name = rng.choice(sorted(bases))
            bad = mutated(bases[name], rng)
            notice = _must_be_noticed(bases[name], bad, ranges[name])
            judge(tally, f"seed {seed}/{number} of {name}", Path(folder) / name, bad, notice)
    tally.megabytes = peak_megabytes()
    return tally


def judge(tally: Tally, label: str, path: Path, data: bytes, notice: bool) -> None:
    """Verify one file, written to ``path``, and note what is wrong with the answer."""
    path.write_bytes(data)
    started = time.perf_counter()
    try:
        targets: Any = verify([path], jobs=1).json["targets"]
    except Exception as error:
        tally.failures.append(f"{label}: {type(error).__name__}: {error}")
        return
    seconds = time.perf_counter() - started
    tally.slowest = max(tally.slowest, seconds)
    verdict = str(targets[0].get("verdict"))
    tally.verdicts[verdict] = tally.verdicts.get(verdict, 0) + 1
    if verdict not in VERDICTS:
        tally.failures.append(f"{label}: the verdict is {verdict}")
    if seconds > SECONDS:
        tally.failures.append(f"{label}: took {seconds:.1f} s")
    if notice and not any(found["severity"] == "error" for found in targets[0]["findings"]):
        tally.failures.append(f"{label}: a byte under a checksum changed, and the verdict is {verdict}")


def _covered(data: bytes) -> list[tuple[int, int]]:
    """The ranges of an archive whose bytes a CRC covers: the content of its records."""
    return [(place.start, place.stop) for place in placed(data)] if data[:4] == b"PK\3\4" else []


def _must_be_noticed(good: bytes, bad: bytes, ranges: list[tuple[int, int]]) -> bool:
    """Whether a byte under a CRC changed in its place. Where bytes moved, other checks speak."""
    return len(good) == len(bad) and any(good[start:stop] != bad[start:stop] for start, stop in ranges)
