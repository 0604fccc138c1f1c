"""Where elements go: presets that move them, computed on counting numbers and held against slices written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from ckpttool.dtypes import DTYPES
from ckpttool.expressions import Expression, Form, Leaf, form_of
from ckpttool.migration import load, rewrite
from ckpttool.rewriting import Named, Names
from ckpttool.verbs.presets import preset


def counted(*shape: int, start: int = 0) -> Any:
    return np.arange(start, start + int(np.prod(shape)), dtype="float32").reshape(shape)


def computed(expression: Expression, arrays: Mapping[str, Any], forms: dict[str, Form]) -> Any:
    if isinstance(expression, Leaf):
        return arrays[expression.name]
    inputs = [computed(part, arrays, forms) for part in expression.inputs]
    shapes = tuple(form_of(part, forms) for part in expression.inputs)
    return expression.op.compute(inputs, shapes)[expression.part]


def carried(
    name: str, arrays: Mapping[str, Any], facts: Mapping[str, Any] | None = None, **settings: int
) -> dict[str, Any]:
    """The preset's result for these arrays."""
    forms = {key: Form(DTYPES["float32"], array.shape) for key, array in arrays.items()}
    names = Names(tuple(Named(key, form) for key, form in forms.items()), facts=facts or {})
    made = rewrite(load(preset(name).text, name), names, settings)
    return {o.name: computed(o.expression, arrays, forms) for o in made.outputs}


def test_llama_rotates_halves_where_meta_rotates_neighbours() -> None:
    """Four heads of four rows, two of them for keys: rows 0, 2, 1, 3 of each head."""
    wq, wk, wv = counted(16, 3), counted(8, 3), counted(8, 3)
    layer = "layers.0.attention"
    made = carried(
        "llama-meta-to-hf",
        {f"{layer}.wq.weight": wq, f"{layer}.wk.weight": wk, f"{layer}.wv.weight": wv},
        n_heads=4,
        n_kv_heads=2,
    )
    rows = [4 * head + row for head in range(4) for row in (0, 2, 1, 3)]
    attention = "model.layers.0.self_attn"
    assert (made[f"{attention}.q_proj.weight"] == wq[rows]).all()
    assert (made[f"{attention}.k_proj.weight"] == wk[rows[:8]]).all()
    assert made[f"{attention}.v_proj.weight"] is wv


def test_heads_of_keys_are_as_many_as_those_of_queries_where_nothing_says_otherwise() -> None:
    wk = counted(16, 3)
    made = carried("llama-meta-to-hf", {"layers.0.attention.wk.weight": wk}, {"params.n_heads": 4})
    rows = [4 * head + row for head in range(4) for row in (0, 2, 1, 3)]
    assert (made["model.layers.0.self_attn.k_proj.weight"] == wk[rows]).all()


def test_torchtune_has_meta_rows_again() -> None:
    wq, wk = counted(24, 3), counted(12, 3)
    layer = "layers.0.attention"
    there = carried("llama-meta-to-hf", {f"{layer}.wq.weight": wq, f"{layer}.wk.weight": wk}, n_heads=4, n_kv_heads=2)
    made = carried("llama-hf-to-torchtune", there, n_heads=4, n_kv_heads=2)
    assert (made["layers.0.attn.q_proj.weight"] == wq).all()
    assert (made["layers.0.attn.k_proj.weight"] == wk).all()


def test_neox_has_blocks_of_queries_keys_and_values() -> None:
    """Three heads of two rows each: q0 q0 k0 k0 v0 v0 q1 …"""
    weight, bias = counted(18, 4), counted(18)
    layer = "gpt_neox.layers.0.attention.query_key_value"
    made = carried("neox-to-litgpt", {f"{layer}.weight": weight, f"{layer}.bias": bias}, n_heads=3)
    rows = [6 * head + 2 * which + row for which in range(3) for head in range(3) for row in range(2)]
    assert (made["transformer.h.0.attn.qkv.weight"] == weight[rows]).all()
    assert (made["transformer.h.0.attn.qkv.bias"] == bias[rows]).all()


@pytest.mark.parametrize(
    ("version", "row"),
    [
        (None, lambda head, which, place: 6 * which + 3 * head + place),
        (0, lambda head, which, place: 6 * which + 3 * head + place),
        (1.0, lambda head, which, place: 9 * head + 3 * place + which),
    ],
)
def test_megatron_gets_heads_outermost(version: float | None, row: Any) -> None:
    """Two heads of three rows."""
    facts = {} if version is None else {"checkpoint_version": version}
    weight = counted(18, 2)
    key = "encoder.layers.0.self_attention.query_key_value.weight"
    made = carried("megatron-qkv-v2", {key: weight}, facts, heads=2)
    rows = [row(head, which, place) for head in range(2) for which in range(3) for place in range(3)]
    assert (made[key] == weight[rows]).all()


def test_megatron_gets_heads_outermost_in_cross_attention() -> None:
    """Two heads of three rows, keys and values only."""
    weight = counted(12, 2)
    key = "decoder.layers.0.inter_attention.key_value.weight"
    made = carried("megatron-qkv-v2", {key: weight}, {"checkpoint_version": 1.0}, heads=2)
    rows = [6 * head + 2 * place + which for head in range(2) for which in range(2) for place in range(3)]
    assert (made[key] == weight[rows]).all()


@pytest.mark.parametrize("version", [2.0, 3.0])
def test_megatron_of_today_stays(version: float) -> None:
    weight = counted(18, 2)
    made = carried("megatron-qkv-v2", {"a.query_key_value.weight": weight}, {"checkpoint_version": version}, heads=2)
    assert made["a.query_key_value.weight"] is weight


def test_experts_are_stacked_by_number_and_w1_stands_above_w3() -> None:
    """Eleven experts: as text, 10 would stand before 2."""
    moe = "model.layers.0.block_sparse_moe.experts"
    arrays = {
        f"{moe}.{expert}.{name}.weight": counted(2, 3, start=100 * expert + 10 * place)
        for expert in range(11)
        for place, name in enumerate(("w1", "w2", "w3"))
    }
    made = carried("mixtral-experts-packed", arrays)
    packed = made["model.layers.0.mlp.experts.gate_up_proj"]
    assert packed.shape == (11, 4, 3)
    for expert in range(11):
        assert (packed[expert, :2] == arrays[f"{moe}.{expert}.w1.weight"]).all()
        assert (packed[expert, 2:] == arrays[f"{moe}.{expert}.w3.weight"]).all()
        assert (made["model.layers.0.mlp.experts.down_proj"][expert] == arrays[f"{moe}.{expert}.w2.weight"]).all()


def test_detectron_moves_and_drops_the_background() -> None:
    scores, boxes, masks = counted(3, 2), counted(12, 2), counted(3, 2, 1, 1)
    made = carried("detectron-to-detectron2", {"cls_score_w": scores, "bbox_pred_w": boxes, "mask_fcn_logits_w": masks})
    assert (made["cls_score.weight"] == scores[[1, 2, 0]]).all()
    assert (made["bbox_pred.weight"] == boxes[4:]).all()
    assert (made["mask_head.predictor.weight"] == masks[1:]).all()


def test_attention_is_cut_into_thirds() -> None:
    fused = counted(6, 2)
    made = carried("mha-split", {"a.in_proj_weight": fused})
    for place, name in enumerate(("q_proj", "k_proj", "v_proj")):
        assert (made[f"a.{name}.weight"] == fused[2 * place : 2 * place + 2]).all()


def test_fairseq_gets_thirds_names_and_a_tied_output() -> None:
    fused, embedding = counted(6, 3), counted(5, 3, start=100)
    layer = "decoder.layers.0"
    made = carried(
        "fairseq-decoder-v2",
        {
            f"{layer}.self_attn.in_proj_weight": fused,
            f"{layer}.layer_norms.1.weight": counted(3),
            "decoder.embed_tokens.weight": embedding,
        },
    )
    for place, name in enumerate("qkv"):
        assert (made[f"{layer}.self_attn.{name}_proj.weight"] == fused[2 * place : 2 * place + 2]).all()
    assert (made[f"{layer}.encoder_attn_layer_norm.weight"] == counted(3)).all()
    assert made["decoder.output_projection.weight"] is embedding


def test_a_low_rank_change_is_scaled_by_alpha_over_rank() -> None:
    weight, down, up = counted(3, 4), counted(2, 4), counted(3, 2)
    layer = "base_model.model.fc"
    made = carried(
        "lora-merge",
        {
            f"{layer}.base_layer.weight": weight,
            f"{layer}.lora_A.default.weight": down,
            f"{layer}.lora_B.default.weight": up,
        },
        alpha=6,
        rank=2,
    )
    assert np.array_equal(made["fc.weight"], weight + 3 * (up @ down))


def test_a_class_token_takes_its_position_in() -> None:
    token, positions = counted(1, 1, 2), counted(1, 4, 2, start=10)
    made = carried(
        "dinov2-reg-to-timm", {"cls_token": token, "pos_embed": positions, "register_tokens": counted(1, 4, 2)}
    )
    assert (made["cls_token"] == token + positions[:, :1]).all()
    assert (made["pos_embed"] == positions[:, 1:]).all()
