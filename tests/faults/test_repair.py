"""What repair does to every fault of a file and of a set, on record. `pytest tests/faults --update-golden` writes it.

``as written`` is the file before the damage, bit for bit; ``saved`` counts tensors kept of all that there were;
``sound`` means that repair finds nothing to do; ``refused`` that nothing can be got back.
"""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ckpttool.errors import CkpttoolError
from ckpttool.testing.faults import FAULTS, Fault, FolderFault, faults_of
from ckpttool.testing.samples import FILES, FOLDERS
from ckpttool.verbs.repair import repair
from ckpttool.verbs.verify import verify

GOLDEN = Path(__file__).with_name("repair.json")
SUFFIX = {"torch-zip": ".pth", "torch-legacy": ".pth", "safetensors": ".safetensors"}
CASES = [
    (kind, fault.name)
    for kind in FILES
    for fault in sorted(faults_of(format=kind), key=lambda fault: fault.name)
    if isinstance(fault, Fault)
]


SETS = ("sharded", "dcp", "sealed", "sealed-folder", "sealed-zip")
SET_CASES = [
    (kind, fault.name)
    for kind in SETS
    for fault in sorted(faults_of(format=kind), key=lambda fault: fault.name)
    if isinstance(fault, FolderFault)
]


@cache
def sound(kind: str) -> bytes:
    return FILES[kind]()


@cache
def golden() -> dict[str, str]:
    kept: dict[str, str] = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}
    return kept


def errors(path: Path) -> set[str]:
    found = [f for subject in verify([path]).subjects for f in subject.findings]
    return {f.name for f in found if f.severity == "error"}


def outcome(folder: Path, kind: str, name: str) -> str:
    """What repair did, in a few words; checks on the way that it did no harm."""
    fault = FAULTS[name]
    assert isinstance(fault, Fault)
    bad = fault.apply(sound(kind), random.Random(f"{kind}/{name}"))
    source, output = folder / f"sample{SUFFIX[kind]}", folder / f"saved{SUFFIX[kind]}"
    source.write_bytes(bad)
    before = errors(source)
    try:
        report: Any = repair(source, output)
    except CkpttoolError:
        assert not output.exists()
        return "refused"
    finally:
        assert source.read_bytes() == bad
    data = report.json
    if not output.exists():
        return "sound"
    after = errors(output)
    assert after <= before, f"new errors: {after - before}"
    if output.read_bytes() == sound(kind):
        return "as written"
    lost = f", {len(data['lost'])} lost" if data["lost"] else ""
    left = f"; still {', '.join(sorted(after))}" if after else ""
    return f"saved {len(data['recovered'])}{lost}{left}"


def outcome_of_set(folder: Path, kind: str, name: str) -> str:
    """The same of a folder; the file that a manifest stands beside is what is repaired, where it is one file."""
    fault = FAULTS[name]
    assert isinstance(fault, FolderFault)
    bad = fault.apply(dict(FOLDERS[kind]()), random.Random(f"{kind}/{name}"))
    home, output = folder / "set", folder / f"saved{'.safetensors' if kind == 'sealed' else '.pth'}"
    home.mkdir(parents=True)
    for file, content in bad.items():
        (home / file).parent.mkdir(parents=True, exist_ok=True)
        (home / file).write_bytes(content)
    alone = [file for file in bad if file in ("weights.safetensors", "checkpoint.pt")]
    source = home / alone[0] if alone and kind in ("sealed", "sealed-zip") else home
    try:
        data: Any = repair(source, output).json
    except CkpttoolError:
        assert not output.exists()
        return "refused"
    finally:
        assert {file: (home / file).read_bytes() for file in bad} == bad
    if not output.exists():
        return "sound"
    assert errors(output) <= errors(source), "new errors"
    by = sorted({str(one["by"]) for one in data["recovered"]})
    lost = f", {len(data['lost'])} lost" if data["lost"] else ""
    return f"saved {len(data['recovered'])}{lost}; proved by {', '.join(by).replace('None', 'nothing')}"


@pytest.mark.parametrize(
    ("kind", "name"), [pytest.param(*case, marks=pytest.mark.slow if i % 3 else ()) for i, case in enumerate(SET_CASES)]
)
def test_repair_does_to_sets_what_is_on_record(
    kind: str, name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--update-golden", default=False):
        pytest.skip("written below")
    assert outcome_of_set(tmp_path, kind, name) == golden()[f"{kind}/{name}"]


@pytest.mark.parametrize(
    ("kind", "name"),
    # A third of them in the run that everyone makes, the others in the slow one.
    [pytest.param(*case, marks=pytest.mark.slow if i % 3 else ()) for i, case in enumerate(CASES)],
)
def test_repair_does_what_is_on_record(kind: str, name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update-golden", default=False):
        pytest.skip("written below")
    assert outcome(tmp_path, kind, name) == golden()[f"{kind}/{name}"]


def test_the_record_is_complete(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    names = [f"{kind}/{name}" for kind, name in (*CASES, *SET_CASES)]
    if request.config.getoption("--update-golden", default=False):
        found = {}
        for kind, name in CASES:
            folder = tmp_path / f"{kind}-{name}"
            folder.mkdir()
            found[f"{kind}/{name}"] = outcome(folder, kind, name)
        for kind, name in SET_CASES:
            found[f"{kind}/{name}"] = outcome_of_set(tmp_path / f"{kind}-{name}", kind, name)
        GOLDEN.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        golden.cache_clear()
    assert sorted(golden()) == sorted(names)
