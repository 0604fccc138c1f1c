"""Presets as a person asks for them: by name."""

from __future__ import annotations

import pytest
import yaml

from ckpttool.errors import UsageError
from ckpttool.verbs.presets import Preset, preset, presets


def test_names_are_sorted_and_lower_case_with_hyphens() -> None:
    names = [found.name for found in presets()]
    assert names == sorted(names)
    assert all(name == name.lower() and "_" not in name for name in names)


@pytest.mark.parametrize("found", presets(), ids=lambda found: found.name)
def test_the_header_is_read_as_a_yaml_reader_reads_it(found: Preset) -> None:
    """``about`` and ``source`` are taken from their lines; a sentence that YAML would read otherwise is not one."""
    read = yaml.safe_load(found.text)
    assert (found.about, found.source) == (read["about"], read["source"])
    assert found.about
    assert found.source


@pytest.mark.parametrize("name", ["densenet-old", "densenet_old", "DenseNet-Old", "densenet-old.yaml"])
def test_a_name_is_found_however_it_is_spelled(name: str) -> None:
    assert preset(name).name == "densenet-old"
    assert preset(name).where == "preset densenet-old"


@pytest.mark.parametrize("name", ["densnet-old", "densenet"])
def test_a_near_miss_is_told_what_there_is(name: str) -> None:
    with pytest.raises(UsageError, match=f"no preset is called '{name}'; did you mean densenet-old") as told:
        preset(name)
    assert "--list-presets" in str(told.value)


def test_a_far_miss_is_not_guessed_at() -> None:
    with pytest.raises(UsageError, match=r"no preset is called 'q\\x1b' \("):
        preset("q\x1b")
