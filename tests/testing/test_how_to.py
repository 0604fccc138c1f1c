"""The code in the how-to runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ckpttool.formats import safetensors
from ckpttool.testing.faults import faults_of
from ckpttool.testing.samples import FILES

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "test-your-own-checkpoints.md"


def run(number: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that one of the page's examples defines."""
    if not PAGE.exists():
        pytest.skip("docs/ is not here: not a full checkout")
    build_one = FILES["safetensors"]
    mine = SimpleNamespace(NAME="safetensors", sniff=safetensors.sniff, read=safetensors.read, build_one=build_one)
    monkeypatch.setitem(__import__("sys").modules, "my_format", mine)
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[number], names)
    return names


@pytest.fixture
def my_checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "mine.pt"
    path.write_bytes(FILES["torch-zip"]())
    return path


def test_the_example_of_faults(tmp_path: Path, my_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = run(0, monkeypatch)["test_a_broken_checkpoint_is_noticed"]
    for fault in faults_of(format="torch-zip", rule="crc-mismatch"):
        example(tmp_path, my_checkpoint, fault)


def test_the_example_of_strategies(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run(1, monkeypatch)
    names["my_save"] = torch.save
    names["test_my_save_function_keeps_everything"]()


def test_the_example_of_an_edit(tmp_path: Path, my_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    my_checkpoint.rename(tmp_path / "checkpoint.pt")
    monkeypatch.chdir(tmp_path)
    run(2, monkeypatch)
    assert (tmp_path / "broken.pt").stat().st_size < (tmp_path / "checkpoint.pt").stat().st_size


def test_the_example_of_a_format(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = run(3, monkeypatch)["TestMyFormat"]()
    suite.test_it_claims_its_own_files()
    suite.test_sound_files_are_read_without_damage()
