"""What `--sanitize` makes of a tree: real torch loads the result with `weights_only`, and every tensor is the same."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import enum
import fractions
import functools
import io
import os
import pathlib
import pickle
import types
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, strategies as st

from ckpttool.formats import describe
from ckpttool.repairing.plain.allowed import ALLOWED
from ckpttool.verbs.repair import repair

# torch warns of what it will not write for ever.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")


class Colour(enum.Enum):
    RED = "red"
    BLUE = 3


class Level(enum.IntEnum):
    LOW = 1


@dataclass
class Config:
    lr: float
    path: pathlib.PurePosixPath
    inner: Any = None


Point = collections.namedtuple("Point", "x y")


class Bag(dict):  # type: ignore[type-arg]
    """A dict of a project's own."""


class Row(list):  # type: ignore[type-arg]
    """A list of a project's own."""


class Slotted:
    __slots__ = ("left", "right")

    def __init__(self) -> None:
        self.left, self.right = 1, [2]


class Attack:
    def __init__(self, flag: str) -> None:
        self.flag = flag

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.flag,)


def bag() -> Bag:
    made = Bag(a=1)
    made.extra = 2  # type: ignore[attr-defined]
    return made


def ordered() -> collections.OrderedDict[str, int]:
    made = collections.OrderedDict(a=1)
    made._metadata = {"": {"version": 2}}  # type: ignore[attr-defined]
    return made


UTC = datetime.timezone(datetime.timedelta(hours=-5, minutes=-30))

ZOO: dict[str, tuple[Any, Any]] = {
    "posix": (pathlib.PurePosixPath("/data") / "run 1", "/data/run 1"),
    "here": (pathlib.PurePosixPath(), "."),
    "windows": (pathlib.PureWindowsPath("C:/data") / "x", "C:\\data\\x"),
    "namespace": (argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("o")), {"lr": 0.1, "out": "o"}),
    "simple": (types.SimpleNamespace(a=[1]), {"a": [1]}),
    "dataclass": (Config(0.5, pathlib.PurePosixPath("p"), Colour.RED), {"lr": 0.5, "path": "p", "inner": "red"}),
    "enum": ([Colour.RED, Colour.BLUE, Level.LOW], ["red", 3, 1]),
    "named tuple": (Point(1, "b"), (1, "b")),
    "bag": (bag(), {"a": 1, "extra": 2}),
    "row": (Row([1, 2]), [1, 2]),
    "slots": (Slotted(), {"left": 1, "right": [2]}),
    "datetime": (datetime.datetime(2024, 5, 6, 7, 8, 9, 10), "2024-05-06T07:08:09.000010"),
    "zoned": (datetime.datetime(2024, 5, 6, tzinfo=UTC), "2024-05-06T00:00:00-05:30"),
    "date": (datetime.date(2024, 5, 6), "2024-05-06"),
    "time": (datetime.time(7, 8, fold=1), "07:08:00"),
    "delta": (datetime.timedelta(days=1, seconds=2), "1 day, 0:00:02"),
    "decimal": (decimal.Decimal("1.50"), "1.50"),
    "fraction": (fractions.Fraction(1, 3), "1/3"),
    "uuid": (uuid.UUID(int=5), str(uuid.UUID(int=5))),
    "set": ({1, 2}, {1, 2}),
    "set of paths": ({pathlib.PurePosixPath("a")}, {"a"}),
    "set of objects": ({Point(1, Colour.RED)}, {(1, "red")}),
    "frozenset": (frozenset({1, 2}), {1, 2}),
    "deque": (collections.deque([1, 2], maxlen=5), [1, 2]),
    "defaultdict": (collections.defaultdict(list, a=[1]), {"a": [1]}),
    "counter": (collections.Counter("aab"), collections.Counter("aab")),
    "ordered": (ordered(), collections.OrderedDict(a=1)),
    "slice": (slice(1, None, 2), {"start": 1, "stop": None, "step": 2}),
    "range": (range(0, 10**12, 3), {"start": 0, "stop": 10**12, "step": 3}),
    "bytes": ([b"", b"abc\xff", bytearray(b"xy")], [b"", b"abc\xff", bytearray(b"xy")]),
    "no bytes": (b"", b""),
    "numbers": ([1 + 2j, -0.0, 1 << 200, True, None], [1 + 2j, -0.0, 1 << 200, True, None]),
    "text": ("\ud800 ü", "\ud800 ü"),
    "class": (Config, f"{Config.__module__}.Config"),
    "function": (os.getpid, f"<removed: {os.getpid.__module__}.getpid>"),
    "partial": (functools.partial(print, 1), "<removed: functools.partial>"),
    "path keys": ({pathlib.PurePosixPath("a"): 1, "a": 2}, {"a (2)": 1, "a": 2}),
    "frozen keys": ({frozenset({1}): 1, (1, Colour.RED): 2}, {"<a set as a key>": 1, (1, "red"): 2}),
}


def archive(torch: ModuleType, path: Path, value: Any, **how: Any) -> Path:
    torch.save(value, path, **how)
    return path


def sanitized(path: Path, **wishes: Any) -> tuple[Path, dict[str, Any]]:
    target = path.with_name("sanitized.pth")
    target.unlink(missing_ok=True)
    return target, repair(path, target, sanitize=True, **wishes).json


def load(torch: ModuleType, path: Path) -> Any:
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("how", [{}, {"pickle_protocol": 5}, {"_use_new_zipfile_serialization": False}], ids=str)
def test_objects_become_plain_data(torch: ModuleType, tmp_path: Path, name: str, how: dict[str, Any]) -> None:
    given_value, expected = ZOO[name]
    weight = torch.arange(6.0)
    path = archive(torch, tmp_path / "in.pth", {"x": given_value, "w": weight}, **how)
    target, report = sanitized(path)
    loaded = load(torch, path if report["sound"] else target)
    assert loaded["x"] == expected
    assert type(loaded["x"]) is type(expected)
    assert torch.equal(loaded["w"], weight)
    assert report["exit_code"] == 0
    assert report["lost"] == []


def test_what_torch_allows_is_our_list(torch: ModuleType) -> None:
    from torch._weights_only_unpickler import _get_allowed_globals

    ours = {f"{module}.{name}" for module, name in ALLOWED}
    # Names that newer versions add are no harm: what is not on our list is taken apart.
    assert ours - set(_get_allowed_globals()) == set()


NUMPY = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex64", "complex128",
]  # fmt: skip


@pytest.mark.parametrize("kind", NUMPY)
@pytest.mark.parametrize("order", "CF")
def test_arrays_become_tensors_of_the_same_bytes(torch: ModuleType, tmp_path: Path, kind: str, order: str) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.array(numpy.arange(600).reshape(20, 30), dtype=kind, order=order)
    swapped = array.astype(array.dtype.newbyteorder(">"))
    value = {"a": array, "s": swapped, "0": array[3, 4], "d": numpy.array(array[1, 1]), "w": torch.ones(3)}
    path = archive(torch, tmp_path / "in.pth", value)
    target, report = sanitized(path)
    loaded = load(torch, target)
    for name in ("a", "s"):
        assert loaded[name].dtype == getattr(torch, kind)
        assert loaded[name].numpy().tobytes() == array.tobytes()
        assert loaded[name].shape == array.shape
    assert loaded["0"] == array[3, 4].item()
    assert type(loaded["0"]) is type(array[3, 4].item())
    assert loaded["d"].shape == ()
    assert report["lost"] == []


def test_other_arrays(torch: ModuleType, tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    value = {
        "texts": numpy.array(["a", "bcd"]),
        "objects": numpy.array([pathlib.PurePosixPath("p"), None], dtype=object),
        "dates": numpy.array(["2024-01-01"], dtype="datetime64[D]"),
        "text": numpy.str_("xyz"),
        "dtype": numpy.dtype("float32"),
        "rng": numpy.random.RandomState(3).get_state(),
        "random": numpy.random.RandomState(3),
    }
    target, _ = sanitized(archive(torch, tmp_path / "in.pth", value))
    loaded = load(torch, target)
    assert loaded["texts"] == ["a", "bcd"]
    assert loaded["objects"] == ["p", None]
    assert loaded["dates"].startswith("<a numpy array of numpy.dtype('M8')")
    assert loaded["text"] == "xyz"
    assert loaded["dtype"] == "numpy.dtype('f4')"
    assert (loaded["rng"][1].numpy() == value["rng"][1]).all()
    assert loaded["random"]["state"]["pos"] == 624


@pytest.mark.parametrize("name", ["parameter", "attributes", "class", "subclass", "hooks", "sparse", "quantized",
                                  "nested", "storage", "conjugate", "meta"])  # fmt: skip
def test_tensors_stay(torch: ModuleType, tmp_path: Path, name: str) -> None:
    made = {
        "parameter": lambda: torch.nn.Parameter(torch.arange(4.0)),
        "attributes": lambda: with_attributes(torch, plain=3),
        "class": lambda: with_attributes(torch, odd=Config(1, pathlib.PurePosixPath("p"))),
        "subclass": lambda: torch.arange(4.0).as_subclass(subclass_of(torch)),
        "hooks": lambda: hooked(torch),
        "sparse": lambda: torch.eye(3).to_sparse(),
        "quantized": lambda: torch.quantize_per_tensor(torch.arange(4.0), 0.5, 1, torch.qint8),
        "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "storage": lambda: torch.arange(4.0).untyped_storage(),
        "conjugate": lambda: torch.arange(4.0).to(torch.complex64).conj(),
        "meta": lambda: torch.empty(3, device="meta"),
    }[name]()
    path = archive(torch, tmp_path / "in.pth", {"t": made, "x": pathlib.PurePosixPath("x")})
    target, report = sanitized(path)
    again = load(torch, target)["t"]
    assert report["lost"] == []
    if name == "storage":
        assert bytes(again) == bytes(made)
        return
    assert (again.dtype, again.layout, again.is_nested) == (made.dtype, made.layout, made.is_nested)
    if name == "nested":
        assert all(torch.equal(one, other) for one, other in zip(again.unbind(), made.unbind(), strict=True))
    elif name != "meta":
        assert torch.equal(dense(torch, again), dense(torch, made))
    assert again.requires_grad == made.requires_grad
    assert getattr(again, "plain", None) == getattr(made, "plain", None)
    assert isinstance(again, torch.nn.Parameter) == isinstance(made, torch.nn.Parameter)


def dense(torch: ModuleType, tensor: Any) -> Any:
    return tensor.detach().to_dense() if tensor.is_sparse else tensor.detach().as_subclass(torch.Tensor)


def with_attributes(torch: ModuleType, **attributes: Any) -> Any:
    tensor = torch.arange(4.0)
    for name, value in attributes.items():
        setattr(tensor, name, value)
    return tensor


def hooked(torch: ModuleType) -> Any:
    tensor = torch.arange(4.0, requires_grad=True)
    tensor._backward_hooks = collections.OrderedDict()
    return tensor


@functools.cache
def subclass_of(torch: ModuleType) -> Any:
    made = type("Own", (torch.Tensor,), {"__module__": __name__})
    globals()["Own"] = made
    return made


def test_nothing_runs_and_dangerous_names_are_cut_out(torch: ModuleType, tmp_path: Path) -> None:
    flag = tmp_path / "ran"
    value = {"evil": Attack(str(flag)), "deep": [{"x": Attack(str(flag))}], "w": torch.ones(2)}
    target, report = sanitized(archive(torch, tmp_path / "in.pth", value))
    loaded = load(torch, target)
    assert not flag.exists()
    assert loaded["evil"] == loaded["deep"][0]["x"] == f"<removed: {os.mkdir.__module__}.mkdir>"
    removed = [step for step in report["plan"] if step["op"] == "remove"]
    assert sorted(key for step in removed for key in step["from"]) == ["deep.0.x", "evil"]


def test_a_tensor_inside_what_is_cut_out_is_a_loss(torch: ModuleType, tmp_path: Path) -> None:
    value = {"f": functools.partial(print, torch.ones(3)), "w": torch.ones(2)}
    _, report = sanitized(archive(torch, tmp_path / "in.pth", value))
    assert report["exit_code"] == 1
    assert len(report["lost"]) == 1


def test_devices_become_the_cpu(torch: ModuleType, tmp_path: Path) -> None:
    path = archive(torch, tmp_path / "in.pth", {"w": torch.arange(4.0)})
    data = path.read_bytes()
    # As long as the tag that it replaces; the checksums are those of the old pickle.
    with_tag = data.replace(b"X\x03\x00\x00\x00cpu", b"X\x03\x00\x00\x00mps")
    assert with_tag != data
    path.write_bytes(with_tag)
    target, report = sanitized(path, include_unproved=True)
    assert describe(target).storages[0].device == "cpu"
    assert any("mps" in step["reason"] for step in report["plan"])
    assert torch.equal(load(torch, target)["w"], torch.arange(4.0))


def test_objects_that_hold_themselves(torch: ModuleType, tmp_path: Path) -> None:
    space = argparse.Namespace()
    space.me = space
    space.list = [space]
    target, _ = sanitized(archive(torch, tmp_path / "in.pth", {"x": space}))
    loaded = load(torch, target)["x"]
    assert loaded["me"] is loaded
    assert loaded["list"][0] is loaded


def test_configurations_of_omegaconf(torch: ModuleType, tmp_path: Path) -> None:
    omegaconf = pytest.importorskip("omegaconf")
    made = omegaconf.OmegaConf.create({"lr": 0.1, "opt": {"betas": [0.9, 0.95]}, "ref": "${lr}", "none": None})
    target, _ = sanitized(archive(torch, tmp_path / "in.pth", {"cfg": made}))
    expected = {"lr": 0.1, "opt": {"betas": [0.9, 0.95]}, "ref": "${lr}", "none": None}
    assert load(torch, target)["cfg"] == expected


def test_twice_is_once(torch: ModuleType, tmp_path: Path) -> None:
    value = {name: value for name, (value, _) in ZOO.items()}
    target, report = sanitized(archive(torch, tmp_path / "in.pth", value))
    assert report["plan"]
    again = repair(target, sanitize=True).json
    assert again["plan"] == []
    assert again["sound"]


def test_a_plain_file_is_left_alone(torch: ModuleType, tmp_path: Path) -> None:
    value = {"w": torch.ones(2), "opt": {"lr": 0.1, "betas": (0.9, 0.99)}, "names": ["a"], "size": torch.Size([2])}
    target, report = sanitized(archive(torch, tmp_path / "in.pth", value))
    assert report["sound"]
    assert not target.exists()


LEAVES = [value for value, _ in ZOO.values()]


@given(st.recursive(
    st.sampled_from(LEAVES) | st.integers() | st.text(max_size=5) | st.integers(1, 5).map(lambda n: ("tensor", n)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
))  # fmt: skip
def test_any_mixture_loads_and_keeps_its_tensors(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("mix")
    tensors: list[Any] = []

    def real(node: Any) -> Any:
        if type(node) is tuple and len(node) == 2 and node[0] == "tensor":
            tensors.append(torch.randint(0, 255, (node[1], 3), dtype=torch.uint8).float())
            return tensors[-1]
        if type(node) is list:
            return [real(item) for item in node]
        return {key: real(item) for key, item in node.items()} if type(node) is dict else node

    tree = {"tree": real(value)}
    path = archive(torch, folder / "in.pth", tree)
    target, report = sanitized(path)
    loaded = load(torch, path if report["sound"] else target)
    found: list[Any] = []

    def gather(node: Any) -> None:
        if isinstance(node, torch.Tensor):
            found.append(node)
        elif isinstance(node, dict):
            for item in node.values():
                gather(item)
        elif isinstance(node, (list, tuple)):
            for item in node:
                gather(item)

    gather(loaded)
    assert len(found) == len(tensors)
    assert all(torch.equal(one, other) for one, other in zip(found, tensors, strict=True))
    assert repair(path if report["sound"] else target, sanitize=True).json["plan"] == []


def test_bare_pickles_become_archives(torch: ModuleType, tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    path = tmp_path / "in.pkl"
    file = io.BytesIO()
    pickle.dump({"w": numpy.arange(5000.0), "n": argparse.Namespace(a=1)}, file, protocol=4)
    path.write_bytes(file.getvalue())
    target, _ = sanitized(path)
    loaded = load(torch, target)
    assert torch.equal(loaded["w"], torch.arange(5000, dtype=torch.float64))
    assert loaded["n"] == {"a": 1}
