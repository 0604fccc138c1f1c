"""Every fault is caught by the rule that it names, every rule has a fault, and what else speaks is on record.

`pytest tests/faults --update-golden` writes matrix.json after a change that is meant.
"""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ckpttool.checks import rules
from ckpttool.testing.faults import FAULTS, Fault, FolderFault, Inapplicable, faults_of
from ckpttool.testing.samples import FILES, FOLDERS
from ckpttool.testing.writers import torch_file
from ckpttool.verbs.verify import verify

GOLDEN = Path(__file__).with_name("matrix.json")
SUFFIX = {"torch-zip": ".pth", "torch-legacy": ".pth", "safetensors": ".safetensors"}
WISHES: dict[str, dict[str, Any]] = {"requirement-not-met": {"require": "resumable"}}
"""What has to be asked for before a rule can speak."""

CASES = [(kind, name) for kind in (*FILES, *FOLDERS) for name in sorted(f.name for f in faults_of(format=kind))]


@cache
def sound(kind: str) -> Any:
    return FILES[kind]() if kind in FILES else FOLDERS[kind]()


def damaged(fault: Fault | FolderFault, kind: str) -> dict[str, bytes]:
    """The damaged files by name."""
    rng = random.Random(f"{kind}/{fault.name}")
    if isinstance(fault, Fault):
        return {f"sample{SUFFIX[kind]}": fault.apply(sound(kind), rng)}
    return fault.apply(dict(sound(kind)), rng)


def found(folder: Path, files: dict[str, bytes], **wishes: Any) -> list[str]:
    """The rules that speak about some files, written to a folder."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    paths = [folder] if len(files) > 1 else [folder / name for name in files]
    targets: Any = verify(paths, **wishes).json["targets"]
    return sorted({finding["name"] for target in targets for finding in target["findings"]})


@cache
def golden() -> dict[str, list[str]]:
    """What spoke when the matrix was written, by case."""
    kept: dict[str, list[str]] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return kept


@pytest.mark.parametrize(("kind", "name"), CASES, ids=[f"{kind}-{name}" for kind, name in CASES])
def test_a_fault_is_caught_by_its_rule(tmp_path: Path, request: pytest.FixtureRequest, kind: str, name: str) -> None:
    fault = FAULTS[name]
    spoke = found(tmp_path, damaged(fault, kind), **WISHES.get(fault.rule, {}))
    assert fault.rule in spoke
    if not request.config.getoption("--update-golden", default=False):
        assert spoke == golden().get(f"{kind}/{name}")


def test_the_matrix_has_these_cases_and_no_others(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--update-golden", default=False):
        spoke = {}
        for kind, name in sorted(CASES):
            fault, folder = FAULTS[name], tmp_path_factory.mktemp("case")
            spoke[f"{kind}/{name}"] = found(folder, damaged(fault, kind), **WISHES.get(fault.rule, {}))
        lines = [f"  {json.dumps(case)}: {json.dumps(names)}" for case, names in spoke.items()]
        GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        golden.cache_clear()
    assert sorted(golden()) == sorted(f"{kind}/{name}" for kind, name in CASES)


@pytest.mark.parametrize("kind", [*FILES, *FOLDERS])
def test_sound_files_are_not_blamed(tmp_path: Path, kind: str) -> None:
    files = sound(kind) if kind in FOLDERS else {f"sample{SUFFIX[kind]}": sound(kind)}
    # A made-up run without numpy's generators and a class of transformers' own: true, and no fault.
    assert set(found(tmp_path, files)) <= {"not-exact", "needs-code"}


def test_every_rule_has_a_fault_and_every_fault_a_rule() -> None:
    assert {fault.rule for fault in FAULTS.values()} == set(rules())


def test_the_same_rng_damages_alike() -> None:
    for kind, name in CASES:
        assert damaged(FAULTS[name], kind) == damaged(FAULTS[name], kind), name


def test_every_fault_says_what_it_is_like() -> None:
    for fault in FAULTS.values():
        assert fault.about, fault.name
        assert fault.formats, fault.name


def test_a_file_without_the_part_is_refused() -> None:
    fault = FAULTS["shuffled-state"]
    assert isinstance(fault, Fault)
    with pytest.raises(Inapplicable, match="no optimizer"):
        fault.apply(torch_file({"epoch": 3}), random.Random(0))
