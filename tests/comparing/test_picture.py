"""Pictures show every layer once, the largest changes first of all, and nothing where nothing changed."""

from __future__ import annotations

import math

import pytest

from ckpttool.changes import Change, Difference, Kind
from ckpttool.comparing.picture import bars, heat_map, pictures
from ckpttool.comparing.places import kind_of, layer_of
from ckpttool.comparing.spots import MOST_ROWS, spots
from ckpttool.report import Bars, HeatMap, Histogram

SHAPED = {"dtype": "float32", "shape": [4]}


def changed(key: str, size: float, kind: Kind = "rewritten", **facts: int) -> Change:
    difference = Difference(4, 4, 4, 4, rms=size, scale=1.0, **facts) if size else None
    return Change(kind, (kind,), key, None, "weights", SHAPED, SHAPED, difference)


def keys(layers: int) -> list[tuple[str, str, int]]:
    return [(f"h.{i}.{leaf}.weight", "weights", 4) for i in range(layers) for leaf in ("attn.q_proj", "ln_1")]


@pytest.mark.parametrize(
    ("key", "layer", "kind"),
    [
        ("model.layers.8.self_attn.q_proj.weight", "model.layers.8", "q"),
        ("model.layers.8.mlp.down_proj.weight", "model.layers.8", "mlp"),
        ("model.layers.8.post_attention_layernorm.weight", "model.layers.8", "norm"),
        ("transformer.h.0.attn.c_attn.weight", "transformer.h.0", "qkv"),
        ("transformer.h.0.attn.c_proj.bias", "transformer.h.0", "o"),
        ("transformer.h.0.mlp.c_proj.weight", "transformer.h.0", "mlp"),
        ("transformer.h.0.ln_1.weight", "transformer.h.0", "norm"),
        ("transformer.wte.weight", "transformer.wte", "embed"),
        ("encoder.layer.3.attention.self.query.weight", "encoder.layer.3", "q"),
        ("encoder.layer.3.attention.output.dense.weight", "encoder.layer.3", "o"),
        ("encoder.layers.0.self_attn.in_proj_weight", "encoder.layers.0", "qkv"),
        ("layer1.0.bn2.running_mean", "layer1.0", "norm"),
        ("layer1.0.conv1.weight", "layer1.0", "conv"),
        ("lm_head.weight", "lm_head", "head"),
        ("model.embed_tokens.weight", "model.embed_tokens", "embed"),
        ("net.0.weight", "net.0", "weight"),
        ("layers.3.mlp.experts.7.w1.weight", "layers.3", "mlp"),
        ("w", "w", "w"),
        ("0", "0", "0"),
        ("", "", ""),
    ],
)
def test_a_key_says_its_layer_and_kind(key: str, layer: str, kind: str) -> None:
    assert (layer_of(key), kind_of(key)) == (layer, kind)


def test_nothing_changed_is_no_picture() -> None:
    assert pictures((), keys(3)) == ()
    assert pictures((), ()) == ()


def test_a_bar_for_each_changed_layer_and_one_for_the_rest() -> None:
    chart = pictures([changed("h.5.attn.q_proj.weight", 0.1)], keys(8))[0]
    assert isinstance(chart, Bars)
    assert [(label, round(size, 4)) for label, size, _ in chart.rows] == [
        ("h.{0..4}", 0.0),
        ("h.5", round(0.1 / math.sqrt(2), 4)),
        ("h.{6,7}", 0.0),
    ]
    assert chart.rows[1][2] == "7.07 %, 1 of 2 tensors, 50.0 % of values"
    assert chart.rows[0][2] == "unchanged: 10 tensors"


def test_the_map_has_the_largest_change_of_each_cell() -> None:
    tensors = [("h.0.mlp.fc1.weight", "weights", 4), ("h.0.mlp.fc2.weight", "weights", 4), *keys(1)]
    change = [changed("h.0.mlp.fc1.weight", 0.01), changed("h.0.mlp.fc2.weight", 0.5)]
    drawn = heat_map(spots(change, tensors)["weights"])
    assert drawn.columns == ("norm", "q", "mlp")
    norm, q, mlp = drawn.cells[0]
    assert norm is not None
    assert q is not None
    assert mlp is not None
    assert (norm.quantity, q.quantity, mlp.quantity) == (0.0, 0.0, 50.0)
    assert mlp.title == "h.0 mlp: 2 of 2 tensors changed; most: h.0.mlp.fc2.weight, 50 %"


@pytest.mark.parametrize(
    "change",
    [
        changed("h.0.ln_1.weight", 0, "added"),
        changed("h.0.ln_1.weight", 0, "reshaped"),
        changed("h.0.ln_1.weight", 0.1, new_nan=1),
    ],
    ids=["added", "reshaped", "nan"],
)
def test_a_change_without_a_size_is_marked(change: Change) -> None:
    drawn = heat_map(spots([change], keys(1))["weights"])
    cell = drawn.cells[0][0]
    assert cell is not None
    assert math.isnan(cell.quantity)


def test_removed_tensors_are_in_the_picture_and_edited_values_are_not() -> None:
    removed = Change("removed", ("removed",), "old.0.fc1.weight", None, "weights", SHAPED)
    edited = Change("edited", ("edited",), "epoch", None, "weights", 1, 2)
    chart = bars(spots([removed, edited], keys(1))["weights"])
    assert [label for label, _, _ in chart.rows] == ["h.0", "old.0"]
    assert chart.rows[1][2] == "1 tensor, 1 removed"


def test_a_renamed_tensor_has_not_changed_in_value() -> None:
    (label, size, _), *_ = bars(spots([changed("h.0.ln_1.weight", 0, "renamed")], keys(1))["weights"]).rows
    assert (label, size) == ("h.0", 0.0)


def test_thousands_of_layers_stay_readable_and_keep_the_largest() -> None:
    every = [changed(f"h.{i}.ln_1.weight", 0.001 + (i == 777)) for i in range(0, 2000, 1)]
    chart, drawn, histogram = pictures(every, keys(2000))
    assert isinstance(chart, Bars)
    assert isinstance(drawn, HeatMap)
    assert isinstance(histogram, Histogram)
    assert len(chart.rows) == len(drawn.rows) <= 2 * MOST_ROWS + 2
    assert "h.777" in drawn.rows
    assert chart.rows[-1][0] == "1,952 layers that changed less"


def test_many_kinds_share_a_column() -> None:
    tensors = [(f"h.0.kind_{chr(97 + i)}.weight", "weights", 4) for i in range(30)]
    drawn = heat_map(spots([changed(tensors[29][0], 0.5)], tensors)["weights"])
    assert len(drawn.columns) == 12
    last = drawn.cells[0][-1]
    assert drawn.columns[-1] == "other"
    assert last is not None
    assert last.quantity == 50


def test_elements_are_counted_by_power_of_ten() -> None:
    *_, histogram = pictures([changed("h.0.ln_1.weight", 0.1)], keys(1), deltas={-3: 5, -1: 2, 4: 0})
    assert isinstance(histogram, Histogram)
    assert [(label, number) for label, number, _ in histogram.bins] == [("1e-3", 5), ("1e-2", 0), ("1e-1", 2)]


def test_other_sections_are_shown_where_the_weights_stayed() -> None:
    change = Change(
        "rewritten", ("rewritten",), "ema.0.w", None, "ema", SHAPED, SHAPED, Difference(4, 4, 4, 4, rms=1.0)
    )
    chart = pictures([change], [*keys(1), ("ema.0.w", "ema", 4)])[0]
    assert isinstance(chart, Bars)
    assert "of ema" in chart.title
