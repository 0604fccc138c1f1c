"""``diff A --against keys.json``: what of a checkpoint would load into a model, as a share of its parameters."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from ckpttool.comparing.against import Fit, Named, best_fit, fit, renamed_key
from ckpttool.errors import ExitCode, Unreadable, UsageError, printable
from ckpttool.folding import fold
from ckpttool.model import Json
from ckpttool.report import Block, Report, Table, Text
from ckpttool.units import count, plural, shape, short_count
from ckpttool.verbs.diff_sides import Target, target
from ckpttool.verbs.inventory import Selection

LARGEST = 1 << 28
"""Bytes of a file of keys that are read."""


def against(
    a: str | os.PathLike[str],
    keys: str | os.PathLike[str],
    *,
    only: Sequence[str] = (),
    ignore: Sequence[str] = (),
    sections: Sequence[str] = (),
    top: int | None = 20,
) -> Report:
    """What of ``a`` loads into a model with these keys, and which change of prefix would load most.

    ``keys`` is a file as ``inspect --keys`` writes it. Of a checkpoint with weights, other tensors count only
    where ``keys`` or ``sections`` ask for them. Reads headers only. Exit code ``OK`` where every key finds its
    tensor and no tensor is left over. Raises ``Unreadable``, and ``UsageError`` for a file that holds no keys.
    """
    wanted = read_keys(keys)
    side = target(a, "a", Selection(tuple(only), tuple(ignore), tuple(sections)))
    if not side.usable:
        return Report("diff", _data(side, keys, None, None, []), tuple(_unusable(side)), ExitCode.IMPOSSIBLE)
    weights = any(item.section == "weights" for item in side.items)
    asked = {one.key for one in wanted}
    # By path, as inspect has them: the items' own keys name an optimizer's state by parameter.
    listed = [(".".join(item.path), item) for item in side.items]
    have = [
        Named(key, tuple(item.tensor.shape))
        for key, item in listed
        if sections or not weights or item.section == "weights" or key in asked
    ]
    plain, best = fit(have, wanted), best_fit(have, wanted)
    code = ExitCode.OK if plain.complete else ExitCode.FINDINGS
    if side.errors:
        code = ExitCode.IMPOSSIBLE
    return Report(
        "diff",
        _data(side, keys, plain, best, wanted),
        tuple(_blocks(side, keys, plain, best, top, {one.key: one for one in wanted}, have)),
        code,
    )


def read_keys(path: str | os.PathLike[str]) -> list[Named]:
    """The keys and shapes of a file that ``inspect --keys`` wrote."""
    name = os.fspath(path)
    try:
        with Path(name).open("rb") as file:
            data = json.loads(file.read(LARGEST))
        return [_named(one) for one in data["keys"]]
    except OSError as error:
        raise Unreadable(name, error.strerror or str(error)) from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UsageError(f"{printable(name)} – holds no keys as 'ckpttool inspect --keys' writes them") from error


def _named(one: object) -> Named:
    if not isinstance(one, dict) or not isinstance(one["key"], str) or not isinstance(one["shape"], list):
        raise ValueError("not a key with its shape")
    if not all(isinstance(n, int) and n >= 0 for n in one["shape"]):
        raise ValueError("not a shape")
    return Named(one["key"], tuple(one["shape"]))


def _data(
    side: Target, keys: str | os.PathLike[str], plain: Fit | None, best: Fit | None, wanted: Sequence[Named]
) -> dict[str, Json]:
    head: dict[str, Json] = {
        "a": {"path": side.name, "format": side.checkpoint.format, "tensors": len(side.items)},
        "b": {"path": printable(os.fspath(keys)), "format": "keys", "tensors": len(wanted)},
        "identical": False,
        "close": False,
        "coverage": {"tensors_a": len(side.items), "tensors_b": len(wanted), "how": "names and shapes"},
        "summary": {},
        "changes": [],
        "metadata": [],
    }
    if plain is None or best is None:
        return head
    changes: list[Json] = [_change("reshaped", key) for key in plain.misshapen]
    changes += [_change("removed", key) for key in plain.unexpected]
    changes += [_change("added", key) for key in plain.missing]
    totals = {"added": len(plain.missing), "removed": len(plain.unexpected), "reshaped": len(plain.misshapen)}
    better = best if best.parameters > plain.parameters else None
    return {
        **head,
        "summary": {kind: number for kind, number in totals.items() if number},
        "changes": changes,
        "loads": _fit(plain),
        "suggestion": None if better is None else {"strip": better.strip, "add": better.add, **_fit(better)},
    }


def _change(kind: str, key: str) -> Json:
    return {"kind": kind, "kinds": [kind], "key": key, "old_key": None, "before": None, "after": None, "stats": None}


def _fit(found: Fit) -> dict[str, Json]:
    return {
        "parameters": found.parameters,
        "of": found.total,
        "share": found.share,
        "tensors": len(found.loaded),
        "missing": [*found.missing],
        "unexpected": [*found.unexpected],
        "misshapen": [*found.misshapen],
    }


def _blocks(
    side: Target,
    keys: str | os.PathLike[str],
    plain: Fit,
    best: Fit,
    top: int | None,
    wanted: dict[str, Named],
    have: Sequence[Named],
) -> list[Block]:
    blocks: list[Block] = [
        Text(f"{side.name} → {printable(os.fspath(keys))}", "title"),
        Text(_loads(plain), "good" if plain.complete else "bad"),
    ]
    if best.parameters > plain.parameters:
        blocks.append(Text(f"{_advice(best)}: then {_loads(best)}", "warning"))
    shapes = {renamed_key(one.key, best.strip, best.add): one.shape for one in have}
    rows = [(key, "another shape", _shapes(shapes.get(key), wanted[key].shape)) for key in best.misshapen]
    rows += [(key, "missing in the checkpoint", "") for key in _folded(best.missing)]
    rows += [(key, "not wanted by the model", "") for key in _folded(best.unexpected)]
    if rows:
        cut = rows if top is None else rows[:top]
        title = f"{count(len(cut))} of {count(len(rows))}" if len(cut) < len(rows) else ""
        blocks.append(Table(("key", "what", "shape"), tuple(cut), "lll", title))
    return [*blocks, Text("coverage: names and shapes, headers only", "dim")]


def _loads(found: Fit) -> str:
    percent = 100 * found.share
    told = "100" if found.parameters == found.total else f"{min(percent, 99.9):.1f}"
    loads = f"{told} % of the parameters would load: {short_count(found.parameters)} of {short_count(found.total)}"
    tensors = len(found.loaded) + len(found.missing) + len(found.misshapen)
    return f"{loads}, in {count(len(found.loaded))} of {plural(tensors, 'tensor')}"


def _advice(found: Fit) -> str:
    taken = f"take the prefix {found.strip} off the checkpoint's keys" if found.strip else ""
    put = (
        f"put {found.add} before {'them' if found.strip else 'the checkpoint' + chr(39) + 's keys'}"
        if found.add
        else ""
    )
    return " and ".join(part for part in (taken, put) if part)


def _shapes(have: tuple[int, ...] | None, want: tuple[int, ...]) -> str:
    return shape(want) if have is None else f"{shape(have)} → {shape(want)}"


def _folded(keys: Sequence[str]) -> list[str]:
    return [one.text for one in fold((key, None) for key in keys)]


def _unusable(side: Target) -> list[Block]:
    told = "; ".join(one.message for one in side.errors) or "there is no tree to compare"
    return [Text(side.name, "title"), Text("not comparable", "bad"), Text(printable(told), "bad")]
