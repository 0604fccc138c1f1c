"""Files that others damaged and forged: what each must be called. `$CKPTTOOL_CORPORA` names their folder."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from ckpttool.verbs.verify import verify

# Bytes changed where the format keeps no checksum, and what stands there now makes sense: nobody can tell.
UNPROVABLE = {
    "E01_payload_flip.pt",
    "F01_payload_flip.safetensors",
    "F02_key_flip.safetensors",
    "F03_dtype_same_width.safetensors",
    "F04_shape_permuted.safetensors",
}
SECONDS = 5.0


def cases() -> list[Any]:
    """File and expectation, from the corpora's own list; one skipped case where there are no corpora."""
    folder = os.environ.get("CKPTTOOL_CORPORA")
    if not folder:
        return [pytest.param("", "", marks=pytest.mark.skip(reason="CKPTTOOL_CORPORA names no folder of corpora"))]
    listed: dict[str, dict[str, Any]] = json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))
    return [pytest.param(name, facts["expect"], id=name) for name, facts in listed.items()]


@pytest.mark.parametrize(("name", "expected"), cases())
def test_a_file_is_called_what_it_is(corpora_dir: Path, name: str, expected: str) -> None:
    started = time.perf_counter()
    report = verify([corpora_dir / name]).json
    assert time.perf_counter() - started < SECONDS
    target: Any = report["targets"][0]  # type: ignore[index, call-overload]
    said = [(f["severity"], f["name"], f["message"]) for f in target["findings"]]
    severities = {severity for severity, _, _ in said}
    if expected == "malicious":
        assert target["safety"] == "unsafe", said
        assert report["exit_code"] == 1
    elif expected == "benign":
        assert "error" not in severities, said
    elif name in UNPROVABLE:
        assert target["integrity"] == "unprovable", said
    elif expected == "suspicious":
        assert severities & {"error", "warning", "info"}, said
    else:
        assert "error" in severities, said
        assert report["exit_code"] == 1
