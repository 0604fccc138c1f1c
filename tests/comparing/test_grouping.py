"""Sentences: what changed, of how many, where."""

from __future__ import annotations

import pytest

from ckpttool.changes import Change, Difference, Kind
from ckpttool.comparing.grouping import by_amount, place, sentences

LAYERS = [f"layers.{i}.{name}.weight" for i in range(12) for name in ("attn", "mlp")]
KEYS = ["embed.weight", *LAYERS, "head.weight"]


def change(key: str, *kinds: Kind, section: str = "weights", **more: object) -> Change:
    return Change(kinds[0], kinds, key, more.pop("old_key", None), section, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ([key for key in LAYERS if key.split(".")[1] in ("8", "9", "10", "11")], ", all in `layers.{8..11}`"),
        (LAYERS, ", all in `layers`"),
        ([key for key in LAYERS if "attn" in key], ", all in `layers.{0..11}.attn`"),
        (["layers.3.attn.weight", "layers.3.mlp.weight"], ", all in `layers.3`"),
        (["embed.weight", "head.weight"], ", all in `{embed,head}`"),
        (KEYS, ""),
    ],
)
def test_places_are_as_narrow_as_they_can_be(changed: list[str], told: str) -> None:
    assert place(changed, KEYS) == told


def test_many_are_one_sentence_and_few_are_named() -> None:
    changes = [change(key, "rewritten") for key in LAYERS[16:]]
    shapes = {"before": {"dtype": "float32", "shape": [1000, 512]}, "after": {"dtype": "float32", "shape": [10, 512]}}
    changes.append(change("head.weight", "reshaped", **shapes))
    assert sentences(changes, {"weights": KEYS}) == [
        "`head.weight` reshaped 1000×512 → 10×512",
        "8 of 26 tensors rewritten, all in `layers.{8..11}`",
    ]


def test_one_cast_for_all_names_the_types() -> None:
    sides = {"before": {"dtype": "float32", "shape": [2]}, "after": {"dtype": "bfloat16", "shape": [2]}}
    changes = [change(key, "retyped", "rewritten", **sides) for key in KEYS]
    assert sentences(changes, {"weights": KEYS}) == ["all 26 tensors retyped float32 → bfloat16 and rewritten"]


def test_values_are_counted_with_what_was_folded() -> None:
    changes = [
        change("epoch", "edited", section="counters", before=1, after=2, facts={"op": "changed", "several": 1}),
        change("rng.python", "edited", section="rng", note="624 of 625 values differ", facts={"several": 624}),
    ]
    assert sentences(changes, {}) == ["625 values edited: `epoch` 1 → 2, `rng.python` (624 of 625 values differ)"]


def test_what_changed_most_comes_first() -> None:
    def rewritten(key: str, rms: float, new_nan: int = 0) -> Change:
        return change(key, "rewritten", difference=Difference(4, 4, 1, 1, rms=rms, scale=1.0, new_nan=new_nan))

    order = [rewritten("little", 0.1), change("came", "added"), rewritten("much", 0.9), rewritten("sick", 0.0, 1)]
    order.append(change("renamed", "renamed", old_key="was"))
    assert [one.key for one in by_amount(order)] == ["sick", "came", "much", "little", "renamed"]
