"""What measuring yields: one small frozen value for each storage, tensor and extent. No I/O here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SpanMeasure:
    """The bytes of one extent or storage: how many were read, their CRC-32 and page-aligned runs of zeros.

    ``zero_runs`` are half-open byte ranges of the *file*, whole 4 KiB pages, merged; at most 64 are kept.
    ``read`` below the span's length means that the file ended early.
    """

    read: int
    crc32: int
    zero_runs: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class TensorMeasure:
    """The logical content of one tensor. Indices count elements in row-major order.

    ``abs_max`` and ``abs_min`` are over finite values. ``first_bad`` is the first NaN or infinity.
    ``constant`` says that all elements have the same bits. ``tiny`` counts nonzero values below 1e-30 and ``huge``
    values above 1e30 in magnitude among ``sampled`` elements taken from fixed places.
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
    hexadecimal SHA-256 values of whole files where a rule asked for them.
    """

    spans: Mapping[str, SpanMeasure] = field(default_factory=dict, hash=False)
    tensors: Mapping[int, TensorMeasure] = field(default_factory=dict, hash=False)
    unread: Mapping[int, str] = field(default_factory=dict, hash=False)
    digests: Mapping[str, str] = field(default_factory=dict, hash=False)
    nbytes: int = 0
