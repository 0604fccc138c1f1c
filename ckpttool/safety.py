"""What a name that a pickle asks to import means for whoever loads it. Pure; an allow-list of exact names.

A block-list can never be complete, so everything that is not known to be plain data is something else: the code
of a project or framework, which loading needs, or a name that every Python has, which no checkpoint needs.
Sources: torch 2.13 ``torch/_weights_only_unpickler.py``; numpy 2.4 and 1.24 pickles; CPython's data classes.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Literal, TypeAlias

Standing: TypeAlias = Literal["plain", "needs-code", "unsafe"]

ALIASES = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy.core": "numpy._core",
    "numpy.core.multiarray": "numpy._core.multiarray",
    "numpy.core.numeric": "numpy._core.numeric",
    "torch.tensor": "torch._tensor",
    "pathlib._local": "pathlib",
}
"""Module names that mean one module in different versions of Python, numpy or torch."""


def _names(module: str, names: str) -> set[tuple[str, str]]:
    return {(module, name) for name in names.split()}


_KINDS = "BFloat16 Bool Byte Char Double Float Half Int Long Short"
_TYPED = " ".join(
    f"{kind}{what}" for kind in f"{_KINDS} ComplexDouble ComplexFloat".split() for what in ("Storage", "Tensor")
)
_QUANTIZED = "QInt32Storage QInt8Storage QUInt2x4Storage QUInt4x2Storage QUInt8Storage"
_SPARSE = " ".join(f"{kind}Tensor" for kind in _KINDS.split() if kind != "Bool")
_WIDTHS = " ".join(f"{sign}int{bits}" for sign in ("", "u") for bits in (1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64))
_FLOATS = (
    "bfloat16 float16 float32 float64 half float double complex32 complex64 complex128 float4_e2m1fn_x2 "
    "float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu"
)
_CODES = (
    "bool bits16 bits1x8 bits2x4 bits4x2 bits8 qint32 qint8 quint2x4 quint4x2 quint8 per_channel_affine "
    "per_channel_affine_float_qparams per_channel_symmetric per_tensor_affine per_tensor_symmetric strided "
    "sparse_coo sparse_csr sparse_csc sparse_bsr sparse_bsc "
    "contiguous_format channels_last channels_last_3d preserve_format"
)

REFERENCES: frozenset[tuple[str, str]] = frozenset(
    _names("torch", f"{_TYPED} {_QUANTIZED} {_WIDTHS} {_FLOATS} {_CODES} Tensor dtype layout memory_format")
    | _names("torch.cuda", _TYPED)
    | _names("torch.sparse", _SPARSE)
    | _names("torch.cuda.sparse", _SPARSE)
    | _names("torch.storage", "TypedStorage UntypedStorage _TypedStorage _UntypedStorage")
    | _names("torch.nn.parameter", "Parameter Buffer UninitializedParameter UninitializedBuffer")
    | _names("torch.distributed.tensor", "DTensor")
    | _names("torch.distributed.tensor.api", "DTensor")
    | _names("torch.distributed._tensor.api", "DTensor")
    | _names("torch.nested._internal.nested_tensor", "NestedTensor")
    | _names("numpy", "ndarray")
    | _names("builtins", "int float str bool list dict tuple object type NoneType")
)
"""Names that data refer to and never call: classes of storages and tensors, element types, layouts."""

SCHEMES: frozenset[tuple[str, str]] = frozenset(
    _names(
        "torch._utils",
        "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter _rebuild_parameter_with_state "
        "_rebuild_qtensor _rebuild_sparse_tensor _rebuild_sparse_csr_tensor _rebuild_nested_tensor "
        "_rebuild_meta_tensor_no_storage _rebuild_wrapper_subclass _rebuild_device_tensor_from_numpy "
        "_rebuild_device_tensor_from_cpu_tensor _rebuild_xla_tensor",
    )
    | _names("torch._tensor", "_rebuild_from_type _rebuild_from_type_v2")
    | _names("torch.nested._internal.nested_tensor", "_rebuild_njt")
    | _names("torch", "Size device")
    | _names("torch.serialization", "_get_layout")
    | _names("collections", "OrderedDict Counter defaultdict deque")
    | _names("builtins", "set frozenset complex bytes bytearray slice range")
    | _names("_codecs", "encode")
)
"""Names that may be called with the arguments that real writers give them, and with no others."""

CONSTRUCTORS: frozenset[tuple[str, str]] = frozenset(
    _names("numpy._core.multiarray", "_reconstruct scalar")
    | _names("numpy._core.numeric", "_frombuffer")
    | _names("numpy", "dtype bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 str_")
    | _names(
        "numpy.dtypes",
        " ".join(
            f"{n}DType"
            for n in "Bool Int8 Int16 Int32 Int64 UInt8 UInt16 UInt32 UInt64 Float16 Float32 Float64 Str".split()
        ),
    )
    | _names("numpy.random._pickle", "__randomstate_ctor __generator_ctor __bit_generator_ctor")
    | _names("numpy.random._mt19937", "MT19937")
    | _names("numpy.random._pcg64", "PCG64 PCG64DXSM")
    | _names("numpy.random._philox", "Philox")
    | _names("numpy.random._sfc64", "SFC64")
    | _names("numpy.random.bit_generator", "SeedSequence __pyx_unpickle_SeedSequence")
    | _names("pathlib", "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath")
    | _names("datetime", "datetime date time timedelta timezone")
    | _names("argparse", "Namespace")
    | _names("types", "SimpleNamespace")
    | _names("decimal", "Decimal")
    | _names("fractions", "Fraction")
    | _names("uuid", "UUID SafeUUID")
    | _names("copyreg", "_reconstructor")
    | _names("torch.jit._pickle", "build_intlist build_tensorlist build_doublelist build_boollist restore_type_tag")
    | _names("torch.distributed.device_mesh", "DeviceMesh")
    | _names("torch.distributed._mesh_layout", "_MeshLayout _FlatLayout")
    | _names("torch.distributed.tensor._dtensor_spec", "DTensorSpec TensorMeta ShardOrderEntry")
    | _names("torch.distributed._tensor.placement_types", "DTensorSpec TensorMeta Shard Replicate Partial _Partial")
    | _names("torch.distributed.tensor.placement_types", "Shard Replicate Partial _StridedShard")
    | _names("torch._dynamo.decorators", "_DimRange")
    | _names(
        "torch.distributed.checkpoint.metadata",
        "Metadata MetadataIndex StorageMeta TensorStorageMetadata BytesStorageMetadata ChunkStorageMetadata "
        "TensorProperties _MEM_FORMAT_ENCODING",
    )
    | _names("torch.distributed.checkpoint.filesystem", "_StorageInfo _StoragePrefix")
)
"""Names that build plain data from plain data; their arguments are bounded, not checked one by one."""

LARGEST_ARGUMENT = 1 << 28
"""No constructor of plain data gets a larger integer from a real writer; one may mean an allocation of that size."""

_PLAIN = REFERENCES | SCHEMES | CONSTRUCTORS

_EVERYWHERE = frozenset(
    "torch numpy pip setuptools pkg_resources distutils wheel six joblib cloudpickle dill pickle5 pandas scipy "
    "sympy networkx jinja2 fsspec yaml requests urllib3 psutil IPython ipykernel jupyter_core matplotlib PIL "
    "attr attrs tqdm click torchvision torchaudio triton mpmath typing_extensions py _pytest pytest nose "
    "cProfile commands cPickle cStringIO StringIO urllib2 Queue exceptions popen2 os2 _winreg __main__builtins".split()
)
"""Packages and old modules that an attacker can count on; the standard library is added below."""

_CLASS_HOMES = ("torch.nn.modules.", "torch.optim.", "torch.nn.parallel.", "torch.utils.data.", "torch.ao.")
"""Where torch keeps classes whose instances people pickle whole; loading them needs that very class."""

_CLASS_MODULES = frozenset({"torch.jit._script", "torch.amp.grad_scaler", "torch.fx.graph_module", "enum"})


def canonical(module: str, name: str) -> tuple[str, str]:
    """The current spelling of a name that older versions spelled otherwise."""
    module = ALIASES.get(module, module)
    if module == "numpy.core" or module.startswith("numpy.core."):
        module = "numpy._core" + module.removeprefix("numpy.core")
    return module, name


def standing(module: str, name: str, trusted: Collection[str] = ()) -> Standing:
    """Judge one name. ``trusted`` holds names that the user vouches for, as ``module.name``.

    ``plain``: data only. ``needs-code``: a class of a project or a training framework. ``unsafe``: anything else
    that a Python with torch has at hand, and every name with a dot in it.
    """
    if f"{module}.{name}" in trusted:
        return "plain"
    module, name = canonical(module, name)
    if "." in name or not module:
        return "unsafe"
    if (module, name) in _PLAIN:
        return "plain"
    if _is_torch_class(module, name):
        return "needs-code"
    top = module.partition(".")[0]
    common = top in sys.stdlib_module_names or top in _EVERYWHERE or not top.isidentifier()
    return "unsafe" if common and top != "__main__" else "needs-code"


def _is_torch_class(module: str, name: str) -> bool:
    # CamelCase names of torch's own class modules: NEWOBJ makes an empty instance, BUILD fills its __dict__.
    home = module.startswith(_CLASS_HOMES) or module in _CLASS_MODULES
    return home and name[:1].isupper() and name.isidentifier()


def may_be_called(module: str, name: str) -> Literal["never", "as torch does", "with plain data", "unknown"]:
    """How a plain name may be used as a callable."""
    key = canonical(module, name)
    if key in SCHEMES:
        return "as torch does"
    if key in CONSTRUCTORS:
        return "with plain data"
    return "never" if key in REFERENCES else "unknown"
