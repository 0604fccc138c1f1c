"""Errors cross from one process to another as they are."""

from __future__ import annotations

import copy
import pickle

import pytest

import ckpttool

ERRORS = [
    ckpttool.Damaged("a.pth", "cut short"),
    ckpttool.Locked("another process"),
    ckpttool.MissingExtra("click", "train"),
    ckpttool.Unreadable("a.pth", "missing"),
    ckpttool.Unsafe("a.pth", "calls os.system"),
    ckpttool.UsageError("no such setting"),
    ckpttool.WriteFailed("a.pth", "the disk is full"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_elsewhere(error: ckpttool.CkpttoolError) -> None:
    for found in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(found) is type(error)
        assert (str(found), found.args, vars(found)) == (str(error), error.args, vars(error))
