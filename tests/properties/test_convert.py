"""Converting there and back is the identity up to what the format states; what is not carried is said, leaf by leaf."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given

from ckpttool.draft import draft_of
from ckpttool.errors import CkpttoolError
from ckpttool.formats import describe
from ckpttool.model import Tensor
from ckpttool.report import Report
from ckpttool.testing import strategies
from ckpttool.verbs.convert import convert
from ckpttool.verbs.diff import diff
from ckpttool.writing.adapting import recorded_ties
from ckpttool.writing.compare import first_difference
from ckpttool.writing.safetensors import lay_out


@pytest.fixture(autouse=True, scope="module")
def unflushed() -> Iterator[None]:
    """Flushing takes most of the time, and is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def saved(value: Any, path: Path) -> Path:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(value, path)
    return path


def converted(source: Path, target: Path) -> tuple[Report | None, str]:
    """The report, or why there is none."""
    try:
        return convert(source, target, verify=True), ""
    except CkpttoolError as error:
        return None, str(error)


def leaves(path: Path) -> set[str]:
    return {entry.key for entry in describe(path).entries()}


@given(strategies.torch_files() | strategies.legacy_files())
def test_torch_files_of_both_kinds_are_one_another(data: bytes) -> None:
    with folder() as place:
        source = place / "a.pt"
        source.write_bytes(data)
        convert(source, place / "b.pt", format="torch", verify=True)
        convert(place / "b.pt", place / "c.pt", format="torch-legacy", verify=True)
        convert(place / "c.pt", place / "d.pt", format="torch", verify=True)
        first = describe(source)
        for name in ("b.pt", "c.pt", "d.pt"):
            assert first_difference(first, describe(place / name)) == ""
            assert diff(source, place / name).data["identical"] is True
        convert(place / "d.pt", place / "e.pt")
        assert (place / "d.pt").read_bytes() == (place / "e.pt").read_bytes()


@given(strategies.safetensors_files())
def test_safetensors_files_come_back_byte_for_byte(data: bytes) -> None:
    with folder() as place:
        source = place / "a.safetensors"
        source.write_bytes(data)
        convert(source, place / "b.safetensors", verify=True)
        again = (place / "b.safetensors").read_bytes()
        convert(place / "b.safetensors", place / "c.safetensors")
        assert (place / "c.safetensors").read_bytes() == again
        assert diff(source, place / "b.safetensors").data["identical"] is True
        assert describe(source).metadata == describe(place / "b.safetensors").metadata


@given(strategies.safetensors_files())
def test_safetensors_through_torch(data: bytes) -> None:
    with folder() as place:
        source = place / "a.safetensors"
        source.write_bytes(data)
        assume(not recorded_ties(describe(source)))  # metadata that reads as a removed name brings it back
        convert(source, place / "b.pt", verify=True)
        convert(place / "b.pt", place / "c.safetensors", verify=True)
        assert diff(source, place / "b.pt").data["changes"] == []
        assert diff(source, place / "c.safetensors").data["changes"] == []


@given(strategies.trees() | strategies.checkpoints())
def test_what_the_library_reads_and_what_is_listed_are_all_there_was(value: Any) -> None:
    with folder() as place:
        source = saved(value, place / "a.pt")
        target = place / "b.safetensors"
        report, why = converted(source, target)
        if report is None:
            assert "would both be named" in why
            assert not target.exists()
            return
        listed: Any = report.data["not_carried"]
        lost = {loss["key"] for loss in listed if loss["kind"] == "content"}
        loaded = pytest.importorskip("safetensors").safe_open(str(target), "pt")
        names = set(loaded.keys())
        carried = {"" if name == "tensor" and name not in leaves(source) else name for name in names}
        assert carried | lost >= leaves(source)
        assert not carried & {key for key in lost if key in leaves(source)} - _wrapped(source)


def _wrapped(path: Path) -> set[str]:
    """Tensors that are carried without their class."""
    return {e.key for e in describe(path).entries() if isinstance(e.node, Tensor) and "from_type" in e.node.form}


@given(strategies.state_dicts())
def test_the_library_loads_the_same_tensors(state: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    library = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    with folder() as place:
        source = saved(state, place / "a.pt")
        convert(source, place / "b.safetensors")
        shared = lay_out(draft_of(describe(source))).metadata
        loaded = library.load_file(place / "b.safetensors")
        for name, tensor in state.items():
            other = loaded.get(name if name in loaded else shared.get(name))
            if other is None:
                continue
            assert (other.dtype, other.shape) == (tensor.dtype, tensor.shape)
            assert bytes(_bits(torch, other)) == bytes(_bits(torch, tensor))


def _bits(torch: Any, tensor: Any) -> Any:
    flat = tensor.detach().reshape(-1).clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8).tolist() if flat.numel() else []


@given(strategies.files())
def test_any_file_is_converted_or_refused_in_one_line(data: bytes) -> None:
    """Sound or not: a file of the new format that reads well, or one line and nothing."""
    with folder() as place:
        source = place / "a"
        source.write_bytes(data)
        for name in ("b.pt", "b.safetensors"):
            report, why = converted(source, place / name)
            if report is None:
                assert len(why.splitlines()) == 1
                assert not (place / name).exists()
            else:
                assert describe(place / name).damage == ()
        assert {path.name for path in place.iterdir()} <= {"a", "b.pt", "b.safetensors"}
