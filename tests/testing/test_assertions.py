"""The assertion passes where nothing changed, and else shows what did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ckpttool.testing import assert_checkpoints_equal
from ckpttool.testing.edit import edited
from ckpttool.testing.plain import tensor
from ckpttool.testing.samples import FILES


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A checkpoint, and one whose `hidden.bias` is zero."""
    data = FILES["torch-zip"]()
    (tmp_path / "a.pt").write_bytes(data)

    def change(state: Any) -> None:
        state["model"]["hidden.bias"] = tensor((32,), bytes(128))

    (tmp_path / "b.pt").write_bytes(edited(data, change))
    return tmp_path / "a.pt", tmp_path / "b.pt"


def test_equal_checkpoints_pass(pair: tuple[Path, Path]) -> None:
    assert_checkpoints_equal(pair[0], pair[0])


def test_the_message_names_what_changed(pair: tuple[Path, Path]) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_checkpoints_equal(*pair)
    assert "hidden.bias" in str(caught.value)
    assert "rewritten" in str(caught.value)


def test_tolerance_and_globs_are_kept(pair: tuple[Path, Path]) -> None:
    assert_checkpoints_equal(*pair, atol=10.0)
    assert_checkpoints_equal(*pair, ignore=["*.bias"])
    assert_checkpoints_equal(*pair, only=["*.weight"])
    with pytest.raises(AssertionError):
        assert_checkpoints_equal(*pair, atol=1e-9)


def test_what_cannot_be_compared_fails(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    (tmp_path / "page.pt").write_text("<html><body>not found</body></html>")
    with pytest.raises(AssertionError):
        assert_checkpoints_equal(pair[0], tmp_path / "page.pt")


def test_the_trace_ends_at_the_caller() -> None:
    with pytest.raises(AssertionError, match="epoch") as caught:
        assert_checkpoints_equal({"epoch": 1}, {"epoch": 2})
    assert caught.traceback[-1].ishidden(caught)
