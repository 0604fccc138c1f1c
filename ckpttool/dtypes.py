"""Element types: one table that every format translates into.

Widths are in bits, since 4-bit and 8-bit floats exist. Sources: torch 2.13 ``torch/_C`` dtype list and
``torch/storage.py``; safetensors 0.8 README for its codes.
"""

from __future__ import annotations

from ckpttool.frozen import dataclass


@dataclass(frozen=True, slots=True)
class DType:
    """An element type: its torch name, its width in storage and what its bits mean.

    ``bits`` is the width of one *logical* element as counted by a tensor's shape (``quint4x2`` packs two
    4-bit elements in a byte, ``float4_e2m1fn_x2`` counts whole bytes). ``exponent`` and ``mantissa`` are
    bit counts for floats and zero otherwise.
    """

    name: str
    bits: int
    kind: str
    exponent: int = 0
    mantissa: int = 0

    @property
    def itemsize(self) -> int:
        """Bytes per element, for whole-byte types; 0 for sub-byte ones."""
        return self.bits // 8

    def nbytes(self, numel: int) -> int:
        """Bytes that ``numel`` elements take, rounded up to a whole byte."""
        return (numel * self.bits + 7) // 8


def _floats() -> list[DType]:
    table = [
        ("float64", 64, 11, 52),
        ("float32", 32, 8, 23),
        ("float16", 16, 5, 10),
        ("bfloat16", 16, 8, 7),
        ("float8_e4m3fn", 8, 4, 3),
        ("float8_e4m3fnuz", 8, 4, 3),
        ("float8_e5m2", 8, 5, 2),
        ("float8_e5m2fnuz", 8, 5, 2),
        ("float8_e8m0fnu", 8, 8, 0),
        ("float6_e2m3fn", 6, 2, 3),
        ("float6_e3m2fn", 6, 3, 2),
        ("float4_e2m1fn", 4, 2, 1),
    ]
    return [DType(name, bits, "float", exponent, mantissa) for name, bits, exponent, mantissa in table]


def _complexes() -> list[DType]:
    table = [("complex128", 128, 11, 52), ("complex64", 64, 8, 23), ("complex32", 32, 5, 10)]
    return [DType(name, bits, "complex", exponent, mantissa) for name, bits, exponent, mantissa in table]


def _integers() -> list[DType]:
    signed = [DType(f"int{bits}", bits, "int") for bits in (8, 16, 32, 64)]
    unsigned = [DType(f"uint{bits}", bits, "uint") for bits in (8, 16, 32, 64)]
    # torch keeps each of its sub-byte integers in a byte of its own.
    narrow = [DType(f"{sign}int{bits}", 8, f"{sign}int") for sign in ("", "u") for bits in range(1, 8)]
    return signed + unsigned + narrow


def _others() -> list[DType]:
    quantized = [("qint8", 8), ("quint8", 8), ("qint32", 32), ("quint4x2", 4), ("quint2x4", 2)]
    opaque = [("bits8", 8), ("bits16", 16), ("bits1x8", 8), ("bits2x4", 8), ("bits4x2", 8)]
    return [
        DType("bool", 8, "bool"),
        DType("float4_e2m1fn_x2", 8, "bits"),
        *(DType(name, bits, "quantized") for name, bits in quantized),
        *(DType(name, bits, "bits") for name, bits in opaque),
    ]


DTYPES: dict[str, DType] = {d.name: d for d in [*_floats(), *_complexes(), *_integers(), *_others()]}
"""Every element type by its torch name."""

BYTE = DTYPES["uint8"]

_ALIASES = {
    "double": "float64",
    "float": "float32",
    "half": "float16",
    "long": "int64",
    "int": "int32",
    "short": "int16",
    "char": "int8",
    "byte": "uint8",
    "cdouble": "complex128",
    "cfloat": "complex64",
    "chalf": "complex32",
}


def dtype_of(name: str) -> DType | None:
    """The element type called ``torch.<name>``, aliases such as ``half`` included; None if there is none."""
    return DTYPES.get(_ALIASES.get(name, name))


_STORAGE_PREFIXES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexDouble": "complex128",
    "ComplexFloat": "complex64",
    "QInt8": "qint8",
    "QUInt8": "quint8",
    "QInt32": "qint32",
    "QUInt4x2": "quint4x2",
    "QUInt2x4": "quint2x4",
}

STORAGE_CLASSES: dict[str, DType] = {
    **{f"{prefix}Storage": DTYPES[name] for prefix, name in _STORAGE_PREFIXES.items()},
    "UntypedStorage": BYTE,
    "_UntypedStorage": BYTE,
}
"""Element type by the name of a torch storage class; untyped storages count bytes.

The packed quantized classes hold whole bytes: torch records ``numel`` in bytes for them.
"""

PACKED_STORAGES = frozenset({"QUInt4x2Storage", "QUInt2x4Storage"})
"""Storage classes whose recorded element count is a byte count although their elements are narrower."""

SAFETENSORS: dict[str, DType] = {
    "BOOL": DTYPES["bool"],
    "F4": DTYPES["float4_e2m1fn"],
    "F6_E2M3": DTYPES["float6_e2m3fn"],
    "F6_E3M2": DTYPES["float6_e3m2fn"],
    "U8": DTYPES["uint8"],
    "I8": DTYPES["int8"],
    "F8_E5M2": DTYPES["float8_e5m2"],
    "F8_E4M3": DTYPES["float8_e4m3fn"],
    "F8_E8M0": DTYPES["float8_e8m0fnu"],
    "F8_E4M3FNUZ": DTYPES["float8_e4m3fnuz"],
    "F8_E5M2FNUZ": DTYPES["float8_e5m2fnuz"],
    "I16": DTYPES["int16"],
    "U16": DTYPES["uint16"],
    "F16": DTYPES["float16"],
    "BF16": DTYPES["bfloat16"],
    "I32": DTYPES["int32"],
    "U32": DTYPES["uint32"],
    "F32": DTYPES["float32"],
    "C64": DTYPES["complex64"],
    "F64": DTYPES["float64"],
    "I64": DTYPES["int64"],
    "U64": DTYPES["uint64"],
}
"""Element type by safetensors code."""
