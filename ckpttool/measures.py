"""What measuring yields: one small frozen value for each storage, tensor and extent. No I/O here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING

from ckpttool.frozen import dataclass

if TYPE_CHECKING:
    from ckpttool.manifest import Sealed

PAGE = 4096
"""Bytes of a page: runs of zeros are counted in whole pages of the file."""

SAMPLES = 1024
"""Least number of elements of a large tensor that are sampled."""


def sample_step(numel: int) -> int:
    """One of how many elements, counted as they lie in the storage, is sampled; odd, to meet every column."""
    return numel // SAMPLES | 1


@dataclass(frozen=True, slots=True)
class SpanMeasure:
    """The bytes of one extent or storage: how many were read, their CRC-32 and page-aligned runs of zeros.

    ``zero_runs`` are half-open byte ranges of the *file*, whole 4 KiB pages, merged; at most 64 are kept.
    ``read`` below the span's length means that the file ended early. Of a deflated record the bytes are those
    that it inflates to: one more than declared says that there are more, and ``zero_runs`` stays empty.
    """

    read: int
    crc32: int
    zero_runs: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class TensorMeasure:
    """The logical content of one tensor. Indices count elements in row-major order.

    ``abs_max`` and ``abs_min`` are over finite values. ``first_bad`` is the first NaN or infinity.
    ``constant`` says that all elements have the same bits. ``tiny`` counts nonzero values below 1e-30 and
    ``huge`` values above 1e30 in magnitude among ``sampled`` elements taken from fixed places, ``zeros`` the
    zeros there. Of complex elements both components count on their own, in all but ``nan`` and ``inf``.
    Elements that are no floats have only ``constant``, ``all_zero`` and, for booleans, ``odd``: bytes that
    are neither 0 nor 1.
    """

    numel: int
    nan: int = 0
    inf: int = 0
    first_bad: int | None = None
    abs_max: float = 0.0
    abs_min: float = 0.0
    constant: bool = False
    all_zero: bool = False
    sampled: int = 0
    tiny: int = 0
    huge: int = 0
    zeros: int = 0
    odd: int = 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """The values of a tensor on which another one's geometry rests: indices, offsets, scales, zero points.

    ``rows`` pairs the least and the greatest value of each row of a matrix of at most 64 rows, of the whole
    tensor otherwise. ``ascending`` says that no row goes down; ``first`` and ``last`` are of the whole
    tensor. ``values`` is all of it, row-major, where it has at most 4096 elements, else empty.
    """

    numel: int
    rows: tuple[tuple[float, float], ...] = ()
    ascending: bool = True
    first: float = 0
    last: float = 0
    values: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Statistics:
    """Full statistics of one tensor's logical content, for ``inspect --stats``.

    Sums are added exactly (``math.fsum`` over leaves of 2^16 elements in row-major order), so they do not
    depend on block size or threads. NaN and infinities are counted and left out of every number.
    ``histogram`` counts finite values in equal bins between ``minimum`` and ``maximum``.
    """

    numel: int
    nan: int
    inf: int
    zeros: int
    minimum: float
    maximum: float
    mean: float
    std: float
    histogram: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Measures:
    """Everything measured of one checkpoint.

    ``spans`` by extent name (an archive's records, a file's data regions); ``tensors`` by node index;
    ``unread`` says, by node index, why a tensor's content could not be measured; ``digests`` are
    hexadecimal SHA-256 values of whole files where a rule asked for them. ``bounds`` holds, by node index,
    what sparse, nested and quantized tensors say about their own parts. ``nbytes`` is how much was read.
    ``seal`` is the manifest that stands beside the checkpoint with what was found, None where there is none.
    """

    spans: Mapping[str, SpanMeasure] = field(default_factory=dict, hash=False)
    tensors: Mapping[int, TensorMeasure] = field(default_factory=dict, hash=False)
    unread: Mapping[int, str] = field(default_factory=dict, hash=False)
    digests: Mapping[str, str] = field(default_factory=dict, hash=False)
    bounds: Mapping[int, Bounds] = field(default_factory=dict, hash=False)
    nbytes: int = 0
    seal: Sealed | None = None
