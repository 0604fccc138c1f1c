"""Small checkpoints built by hand: a file of bytes, storages in it, tensors over those."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from ckpttool.dtypes import DTYPES
from ckpttool.model import Checkpoint, Checksum, Extent, Mapping, Node, Span, Storage, Tensor, Value


@dataclass
class Maker:
    """Lays storages into one file and describes them, as a reader would."""

    path: Path
    gap: int = 64
    data: bytearray = field(default_factory=lambda: bytearray(b"head" * 16))
    storages: list[Storage] = field(default_factory=list)
    extents: list[Extent] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def storage(
        self, raw: bytes, dtype: str = "uint8", *, deflate: bool = False, swapped: bool = False, crc: bool = True
    ) -> int:
        kept = raw
        if deflate:
            packer = zlib.compressobj(wbits=-15)
            kept = packer.compress(raw) + packer.flush()
        span = Span(str(self.path), len(self.data), len(self.data) + len(kept))
        self.data += kept + b"\xee" * self.gap
        name = f"data/{len(self.storages)}"
        checksum = Checksum("crc32", zlib.crc32(raw))
        method = "deflate" if deflate else "stored"
        self.extents.append(Extent(name, span, checksum, method, len(raw)))
        self.storages.append(Storage(name, DTYPES[dtype], len(raw), span, checksum, record=name, swapped=swapped))
        return len(self.storages) - 1

    def tensor(
        self,
        name: str,
        storage: int,
        dtype: str,
        shape: tuple[int, ...],
        stride: tuple[int, ...] | None = None,
        offset: int = 0,
    ) -> None:
        steps = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape))) if stride is None else stride
        self.tensors[name] = Tensor(DTYPES[dtype], shape, steps, offset, storage)

    def array(self, name: str, values: np.ndarray, dtype: str | None = None, **how: bool) -> None:
        """A contiguous tensor on a storage of its own."""
        kind = dtype or values.dtype.name
        raw = values.byteswap().tobytes() if how.get("swapped") else values.tobytes()
        self.tensor(name, self.storage(raw, kind, **how), kind, values.shape)

    def checkpoint(self, write: bool = True) -> Checkpoint:
        if write:
            self.path.write_bytes(self.data)
        nodes: list[Node] = []
        for name, tensor in self.tensors.items():
            nodes += [Value(name), tensor]
        count = len(nodes)
        nodes.append(Mapping("dict", tuple(range(0, count, 2)), tuple(range(1, count, 2))))
        return Checkpoint(str(self.path), "torch-zip", tuple(nodes), count, tuple(self.storages), tuple(self.extents))

    def index(self, name: str) -> int:
        return 2 * list(self.tensors).index(name) + 1

    def cut(self, nbytes: int) -> None:
        """Shorten the file and not its description."""
        self.path.write_bytes(bytes(self.data)[:nbytes])

    def damage(self, storage: int, offset: int, new: bytes) -> None:
        """Change bytes of a stored storage after its checksum was taken."""
        span = self.storages[storage].span
        assert span is not None
        self.data[span.start + offset : span.start + offset + len(new)] = new

    def inline(self, storage: int, raw: bytes) -> None:
        self.storages[storage] = replace(self.storages[storage], span=None, inline=raw, record="")


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path / "file.bin")
