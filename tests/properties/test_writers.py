"""Law: what is written reads as what was given, up to where its bytes lie; and the real loader agrees."""

from __future__ import annotations

import io
import warnings
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given

from ckpttool.draft import draft_of
from ckpttool.editing import Editor
from ckpttool.formats import describe_source
from ckpttool.source import Memory
from ckpttool.testing import strategies
from ckpttool.testing.oracle import differences
from ckpttool.testing.rewriting import rewritten, says, written
from ckpttool.writing import torch_legacy, torch_zip

WRITERS = (torch_zip, torch_legacy)
OLD = strategies.dtypes(strategies.TYPED)


@pytest.mark.parametrize("writer", WRITERS)
@given(data=strategies.torch_files() | strategies.legacy_files())
def test_what_is_written_reads_as_what_was_given(writer: ModuleType, data: bytes) -> None:
    again = rewritten(writer, data)
    assert says(again) == says(data)
    assert describe_source(Memory(again), audit=True).damage == ()


@pytest.mark.parametrize("writer", WRITERS)
@given(data=strategies.torch_files())
def test_writing_is_deterministic_and_settles_at_once(writer: ModuleType, data: bytes) -> None:
    once = rewritten(writer, data)
    assert rewritten(writer, data) == once
    assert rewritten(writer, once) == once


@pytest.mark.parametrize("writer", WRITERS)
@given(data=strategies.torch_files())
def test_an_editor_that_changes_nothing_changes_nothing(writer: ModuleType, data: bytes) -> None:
    source = Memory(data)
    checkpoint = describe_source(source)
    assert written(writer, Editor(checkpoint).finish(), source) == written(writer, draft_of(checkpoint), source)


def saved(torch: Any, value: Any, *, legacy: bool) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(value, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def load(torch: Any, data: bytes, **how: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(io.BytesIO(data), **how)


def load_as(torch: Any, source: bytes, data: bytes) -> Any:
    """A file loaded as its source can be: without trust, unless torch asks for it of plain data too (``b""``)."""
    try:
        load(torch, source, weights_only=True)
    except UnpicklingError:
        return load(torch, data, weights_only=False)
    return load(torch, data, weights_only=True)


def agree(data: bytes, loaded: Any) -> list[str]:
    source = Memory(data)
    return differences(describe_source(source), source, loaded)


@given(strategies.trees() | strategies.checkpoints())
def test_torch_loads_what_it_saved_and_we_wrote_again(value: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    data = saved(torch, value, legacy=False)
    again = rewritten(torch_zip, data)
    assert says(again) == says(data)
    assert agree(data, load_as(torch, data, again)) == []


@given(strategies.trees(elements=OLD) | strategies.checkpoints(elements=OLD))
def test_and_in_the_old_format(value: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    data = saved(torch, value, legacy=True)
    again = rewritten(torch_legacy, data)
    assert says(again) == says(data)
    assert agree(data, load_as(torch, data, again)) == []


@given(strategies.trees(elements=OLD) | strategies.checkpoints(elements=OLD))
def test_and_from_either_format_in_the_other(value: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for legacy, writer in ((True, torch_zip), (False, torch_legacy)):
        data = saved(torch, value, legacy=legacy)
        assert agree(data, load_as(torch, data, rewritten(writer, data))) == []
