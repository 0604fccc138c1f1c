"""Imports point downward, as the picture in docs/architecture.md has it.

The map below is that picture as data. A room is a module or a package directly below `ckpttool`; every room
has its line here, and a new one needs one. Imports inside functions count too: laziness changes when a module
loads, not which way the arrow points. Imports for the type checker alone do not count.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

# The nouns, and what they need to be said. Standard library alone.
GROUND = {
    "boxes",
    "changes",
    "draft",
    "dtypes",
    "editing",
    "errors",
    "expressions",
    "folding",
    "layout",
    "limits",
    "manifest",
    "measures",
    "model",
    "plan",
    "report",
    "retention",
    "rewriting",
    "rules",
    "safety",
    "stamps",
    "tree",
    "frozen",
    "units",
    "version",
}
BYTES = {"source", "measure", "pool"}
PURE = {"checks", "comparing", "migration", "ops", "pairing", "profiles", "repairing"}
WORK = GROUND | BYTES | PURE | {"formats", "memory", "writing"}

# Room -> the other rooms that it may import. "" is the package's own face, `ckpttool/__init__.py`.
MAY_IMPORT: dict[str, set[str]] = {
    **dict.fromkeys(GROUND, GROUND),
    "source": GROUND,
    "pool": GROUND,
    "measure": GROUND | {"source", "pool"},
    "formats": GROUND | {"source"},
    "memory": GROUND | {"source", "formats"},
    "checks": GROUND,
    "comparing": GROUND,
    "pairing": GROUND,
    "ops": GROUND,
    "migration": GROUND | {"ops", "pairing"},
    "repairing": GROUND | {"ops"},
    "writing": GROUND | BYTES | {"formats", "ops"},
    "profiles": GROUND,
    "config": GROUND,
    "verbs": WORK,
    "determinism": WORK,
    "render": GROUND,
    "testing": WORK | {"verbs", "determinism", "render"},
    "pytest_plugin": WORK | {"verbs", "determinism", "render", "testing", "config"},
    "trainer": {""},
    "saving": WORK | {"verbs"},
    "": WORK | {"verbs", "determinism", "render", "saving"},
    "cli": WORK | {"", "verbs", "determinism", "render", "trainer", "config"},
    "__main__": {"cli"},
}

# Package from elsewhere -> the rooms (or modules) that may import it. The ground imports none.
MAY_BE_IMPORTED_BY: dict[str, set[str]] = {
    "click": {"cli"},
    "deepdiff": {"comparing"},
    "rich": {"cli", "render"},
    "matplotlib": {"render.curves"},
    "numpy": {"measure", "ops", "pairing", "writing", "verbs", "determinism", "testing", "trainer"},
    "isal": {"source", "measure", "formats", "verbs", "writing"},
    "fsspec": {"source"},
    "xxhash": {"determinism.digesting", "determinism.leaves", "measure", "saving", "writing"},
    "yaml": {"migration"},
    "lap": {"pairing"},
    "rapidfuzz": {"pairing"},
    "torch": {
        "trainer",
        "determinism.digesting",
        "determinism.batches",
        "determinism.hooks",
        "determinism.inflow",
        "determinism.living",
        "determinism.measuring",
        "determinism.recorder",
        "determinism.snapshots",
        "determinism.surgery",
        "determinism.watching",
        "saving.save",
        "testing.strategies.real",
    },
    "safetensors": {"saving.load"},
    "hypothesis": {"testing", "pytest_plugin"},
    "pytest": {"testing", "pytest_plugin"},
}


def room(module: str) -> str:
    """`ckpttool.formats.zip` -> `formats`; the face -> ``; what `python -m` starts -> `__main__`, wherever it lies."""
    *_, name = parts = module.split(".")
    return "__main__" if name == "__main__" else parts[1] if len(parts) > 1 else ""


def violations(graph: grimp.ImportGraph, root: str) -> Iterator[str]:
    """One line for each import that points up, sideways or out of the house where it should not."""
    for importer in sorted(graph.modules):
        if importer.split(".")[0] != root:
            continue
        if room(importer) not in MAY_IMPORT:
            yield f"{importer}: the room {room(importer)!r} has no line in MAY_IMPORT"
            continue
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            if not allowed(importer, imported, root):
                lines = [d["line_number"] for d in graph.get_import_details(importer=importer, imported=imported)]
                yield f"{importer}:{lines[0]} imports {imported}"


def allowed(importer: str, imported: str, root: str) -> bool:
    """Whether the map has this arrow."""
    top = imported.partition(".")[0]
    if top != root:
        places = MAY_BE_IMPORTED_BY.get(top, set())
        within = importer.partition(".")[2]
        return any(within == place or within.startswith(place + ".") for place in places)
    return room(imported) == room(importer) or room(imported) in MAY_IMPORT[room(importer)]


def import_graph(root: str) -> grimp.ImportGraph:
    """Read from the source, without importing it; the standard library left out."""
    graph = grimp.build_graph(root, include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None)
    for module in graph.modules - graph.find_descendants(root) - {root}:
        if module.split(".")[0] in sys.stdlib_module_names:
            graph.remove_module(module)
    return graph


def test_imports_point_downward() -> None:
    assert list(violations(import_graph("ckpttool"), "ckpttool")) == []


def test_every_file_is_looked_at() -> None:
    """A folder without `__init__.py` would be overlooked, by the test above and by the type checker."""
    package = Path(__file__).parents[2] / "ckpttool"
    files = {path.relative_to(package.parent).with_suffix("").parts for path in package.rglob("*.py")}
    names = {".".join(parts).removesuffix(".__init__") for parts in files}
    assert names - import_graph("ckpttool").modules == set()


def test_the_map_has_no_circle_above_the_ground() -> None:
    above = {name: targets - GROUND for name, targets in MAY_IMPORT.items() if name not in GROUND}
    while leaves := [name for name, targets in above.items() if not targets & above.keys()]:
        for name in leaves:
            del above[name]
    assert above == {}


@pytest.mark.parametrize(
    ("module", "line", "complaint"),
    [
        ("formats/zip.py", "from house.measure import crc", "house.formats.zip:1 imports house.measure"),
        ("checks/nan.py", "import house.source", "house.checks.nan:1 imports house.source"),
        ("model.py", "import numpy", "house.model:1 imports numpy"),
        ("verbs/diff.py", "def f():\n    import torch", "house.verbs.diff:2 imports torch"),
        ("attic.py", "", "house.attic: the room 'attic' has no line in MAY_IMPORT"),
    ],
)
def test_a_wrong_arrow_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, line: str, complaint: str
) -> None:
    for name in ("__init__.py", "measure.py", "source.py", module):
        path = tmp_path / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(line if name == module else "")
    monkeypatch.syspath_prepend(tmp_path)
    assert list(violations(import_graph("house"), "house")) == [complaint]
