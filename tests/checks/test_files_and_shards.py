"""The rules about whole files, headers and sets of shards: what each finding says about its target."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ckpttool.checks import rules
from ckpttool.formats import describe

TABLE = [
    ("CK100", "not-a-checkpoint", "error", "none"),
    ("CK124", "header-malformed", "error", "integrity"),
    ("CK126", "polyglot", "warning", "none"),
    ("CK131", "header-ambiguous", "error", "hostile"),
    ("CK132", "header-odd", "warning", "none"),
    ("CK133", "unreadable-part", "error", "integrity"),
    ("CK215", "tar-layout", "warning", "none"),
    ("CK801", "missing-shard", "error", "integrity"),
    ("CK802", "unreferenced-shard", "warning", "none"),
    ("CK803", "key-not-in-shard", "error", "integrity"),
    ("CK804", "key-not-in-index", "warning", "none"),
    ("CK805", "duplicate-shard-key", "warning", "none"),
    ("CK806", "total-size", "warning", "none"),
    ("CK807", "shard-count", "warning", "none"),
    ("CK808", "shard-path", "error", "safety"),
    ("CK809", "index-malformed", "error", "integrity"),
    ("CK810", "shard-damaged", "error", "integrity"),
]


@pytest.mark.parametrize(("code", "name", "severity", "axis"), TABLE)
def test_codes_names_and_severities_stay(code: str, name: str, severity: str, axis: str) -> None:
    rule = rules()[name]
    assert (rule.code, rule.severity, rule.axis) == (code, severity, axis)
    assert rule.judge is None
    assert "weights_only=False" not in rule.page


def test_readers_report_only_rules_that_exist(tmp_path: Path, fixtures_dir: Path) -> None:
    """A sharded set with everything wrong at once: one finding of each kind, each explained by a page."""
    one, two = "model-00001-of-00004.bin", "model-00002-of-00005.bin"
    (tmp_path / one).write_bytes((fixtures_dir / "mlp.pth").read_bytes())
    (tmp_path / two).write_bytes((fixtures_dir / "mlp.pth").read_bytes())
    (tmp_path / "model-00003-of-00004.bin").write_bytes(b"")
    (tmp_path / "model-00009-of-00004.bin").write_bytes(b"")
    named = {"absent": one, "other": two, "empty": "model-00003-of-00004.bin", "gone": "x.bin", "out": "../x"}
    index = tmp_path / "model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {**named, "number": 1}, "metadata": {"total_size": 1}}))
    found = {damage.rule for damage in describe(index).damage}
    assert found == {
        "missing-shard",
        "unreferenced-shard",
        "key-not-in-shard",
        "key-not-in-index",
        "duplicate-shard-key",
        "shard-count",
        "shard-path",
        "index-malformed",
        "shard-damaged",
    }
    assert found <= rules().keys()
