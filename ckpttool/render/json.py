"""JSON for scripts: the contract's object, with one element of each list on a line of its own."""

from __future__ import annotations

import json
import math

from ckpttool.model import Json
from ckpttool.report import Report


def json_text(report: Report) -> str:
    """The report's JSON object, pure ASCII; NaN and infinities are strings (``NaN``, ``-Infinity``).

    Each top-level key starts a line, as does each element of a top-level list: readable, greppable, and
    written by the fast encoder, which cannot indent.
    """
    return document(report.json)


def document(data: dict[str, Json]) -> str:
    """One JSON object laid out as ``json_text`` says."""
    return "{\n" + ",\n".join(f"  {json.dumps(key)}: {_value(value)}" for key, value in data.items()) + "\n}\n"


def _value(value: Json) -> str:
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"    {_compact(item)}" for item in value) + "\n  ]"
    return _compact(value)


def _compact(value: Json) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_spelled(value), allow_nan=False)


def _spelled(value: Json) -> Json:
    """The same value with floats that JSON lacks as strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _spelled(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_spelled(inner) for inner in value]
    return value
