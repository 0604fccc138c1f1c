"""Well-known models under the names of two libraries, contents unknown: what inference gets right, and never wrong.

``reads`` is the share of the true pairs that has to be found. Where somebody sorted the keys, order says nothing,
so that less is found; still nothing may be wrong.
"""

from __future__ import annotations

import pytest

from ckpttool.changes import Pairing
from ckpttool.pairing import pair
from ckpttool.profiles import lay_out
from ckpttool.testing.trees import T, checkpoint_of
from ckpttool.verbs.inventory import items

D, M = 64, 256
Model = dict[str, T]
Case = tuple[Model, Model, dict[str, str]]

# One line for each module: the name in a, the name in b ("-": not there), shapes of weight and bias.
_VECTOR = ((D,), (D,))


def model_of(lines: list[tuple[str, str, tuple[tuple[int, ...], ...]]], layers: int) -> Case:
    """Both models in the order in which their modules are listed, ``#`` being each layer in turn."""
    a: Model = {}
    b: Model = {}
    truth: dict[str, str] = {}
    blocks = [line for line in lines if "#" in line[0] + line[1]]
    before, after = lines[: lines.index(blocks[0])], lines[lines.index(blocks[-1]) + 1 :]
    for layer in [None, *range(layers), None]:
        some = blocks if layer is not None else (after if a else before)
        for ours, theirs, shapes in some:
            for leaf, shape in zip(("weight", "bias"), shapes, strict=False):
                x, y = (f"{name.replace('#', str(layer))}.{leaf}" for name in (ours, theirs))
                if ours != "-":
                    a[x] = T(shape)
                if theirs != "-":
                    b[y] = T(shape)
                if "-" not in (ours, theirs):
                    truth[x] = y
    return a, b, truth


def vit() -> Case:
    p, q = "blocks.#.", "vit.encoder.layer.#."
    return model_of(
        [
            ("patch_embed.proj", "vit.embeddings.patch_embeddings.projection", ((D, 3, 4, 4), (D,))),
            (p + "attn.qkv", "-", ((3 * D, D), (3 * D,))),
            ("-", q + "attention.attention.query", ((D, D), (D,))),
            ("-", q + "attention.attention.key", ((D, D), (D,))),
            ("-", q + "attention.attention.value", ((D, D), (D,))),
            (p + "attn.proj", q + "attention.output.dense", ((D, D), (D,))),
            (p + "mlp.fc1", q + "intermediate.dense", ((M, D), (M,))),
            (p + "mlp.fc2", q + "output.dense", ((D, M), (D,))),
            (p + "norm1", q + "layernorm_before", _VECTOR),
            (p + "norm2", q + "layernorm_after", _VECTOR),
            ("norm", "vit.layernorm", _VECTOR),
            ("head", "classifier", ((10, D), (10,))),
        ],
        layers=12,
    )


def llama() -> Case:
    p, q = "layers.#.", "model.layers.#."
    linear = [(f"{p}attention.w{w}", f"{q}self_attn.{w}_proj", ((D, D),)) for w in "qkvo"]
    return model_of(
        [
            ("tok_embeddings", "model.embed_tokens", ((100, D),)),
            *linear,
            (p + "feed_forward.w1", q + "mlp.gate_proj", ((M, D),)),
            (p + "feed_forward.w3", q + "mlp.up_proj", ((M, D),)),
            (p + "feed_forward.w2", q + "mlp.down_proj", ((D, M),)),
            (p + "attention_norm", q + "input_layernorm", ((D,),)),
            (p + "ffn_norm", q + "post_attention_layernorm", ((D,),)),
            ("norm", "model.norm", ((D,),)),
            ("output", "lm_head", ((100, D),)),
        ],
        layers=8,
    )


def bert() -> Case:
    p, q = "bert.encoder.layer.#.", "distilbert.transformer.layer.#."
    word = (("query", "q_lin"), ("key", "k_lin"), ("value", "v_lin"))
    return model_of(
        [
            *[(f"{p}attention.self.{x}", f"{q}attention.{y}", ((D, D), (D,))) for x, y in word],
            (p + "attention.output.dense", q + "attention.out_lin", ((D, D), (D,))),
            (p + "attention.output.LayerNorm", q + "sa_layer_norm", _VECTOR),
            (p + "intermediate.dense", q + "ffn.lin1", ((M, D), (M,))),
            (p + "output.dense", q + "ffn.lin2", ((D, M), (D,))),
            (p + "output.LayerNorm", q + "output_layer_norm", _VECTOR),
        ],
        layers=6,
    )


def resnet() -> Case:
    """Stages that one side names and the other counts."""
    lines: list[tuple[str, str, tuple[tuple[int, ...], ...]]] = []
    for stage, width in enumerate((8, 16, 32, 64)):
        for block in range(2):
            x, y = f"layer{stage + 1}.{block}.", f"stages.{stage}.blocks.{block}."
            inner = width if block else max(8, width // 2)
            lines += [
                (x + "conv1", y + "conv_a", ((width, inner, 3, 3),)),
                (x + "bn1", y + "norm_a", ((width,), (width,))),
                (x + "conv2", y + "conv_b", ((width, width, 3, 3),)),
                (x + "bn2", y + "norm_b", ((width,), (width,))),
            ]
    return model_of([*lines, ("fc.#", "head.#", ((10, 64), (10,)))], layers=1)


def gpt2() -> Case:
    """nanoGPT stores transposed what GPT-2 has as Conv1D, under one more prefix."""
    p, q = "h.#.", "transformer.h.#."
    names = ["ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"]
    shapes = [_VECTOR, ((D, 3 * D), (3 * D,)), ((D, D), (D,)), _VECTOR, ((D, M), (M,)), ((M, D), (D,))]
    a, b, truth = model_of([(p + n, q + n, s) for n, s in zip(names, shapes, strict=True)], layers=12)
    b = {k: T(v.shape[::-1]) if ".c_" in k else v for k, v in b.items()}
    return a, {**b, "lm_head.weight": T((100, D))}, truth


def attention() -> Case:
    """The pattern that holds for every layer."""
    word = {"q": "query", "k": "key", "v": "value"}
    lines = [(f"layers.#.attn.{x}", f"blocks.#.att.{y}", ((D, D),)) for x, y in word.items()]
    return model_of(lines, layers=12)


def nonsense() -> Case:
    """Nothing but order says who is who: that is not said."""
    word = {"alpha": "zing", "beta": "wump", "gamma": "frob", "delta": "quux"}
    return model_of([(f"layers.#.{x}", f"stack.#.{y}", ((D, D),)) for x, y in word.items()], layers=8)


CASES = {c.__name__: c for c in (vit, llama, bert, resnet, gpt2, attention, nonsense)}


def inferred(a: Model, b: Model) -> Pairing:
    one, two = checkpoint_of(a), checkpoint_of(b)
    ours, theirs = lay_out(one), lay_out(two)
    return pair(one, two, ours, theirs, items(one, ours), items(two, theirs), lambda side, wanted: {})


def judged(a: Model, b: Model, truth: dict[str, str]) -> tuple[float, list[tuple[str, str, float]]]:
    """The share of the truth that was found, and what is wrong."""
    pairs = inferred(a, b).pairs
    wrong = [(p.a.key, p.b.key, p.score) for p in pairs if truth.get(p.a.key) != p.b.key]
    return (len(pairs) - len(wrong)) / len(truth), wrong


@pytest.mark.parametrize("case", sorted(CASES.keys() - {"nonsense"}))
def test_finds_nearly_everything_in_the_models_order(case: str) -> None:
    share, wrong = judged(*CASES[case]())
    assert wrong == []
    assert share > 0.98  # `output` is nothing like `lm_head`


@pytest.mark.parametrize(
    ("case", "reads"),
    [
        ("vit", 0.9),
        ("llama", 0.7),
        ("bert", 1.0),
        ("resnet", 0.0),
        ("gpt2", 1.0),
        ("attention", 1.0),
        ("nonsense", 0.0),
    ],
)
def test_is_never_wrong_where_keys_are_sorted(case: str, reads: float) -> None:
    a, b, truth = CASES[case]()
    share, wrong = judged(dict(sorted(a.items())), dict(sorted(b.items())), truth)
    assert wrong == []
    assert share >= reads


@pytest.mark.parametrize("case", CASES)
def test_the_sides_may_change_places(case: str) -> None:
    a, b, _ = CASES[case]()
    there = {(p.a.key, p.b.key, p.score) for p in inferred(a, b).pairs}
    assert {(p.b.key, p.a.key, p.score) for p in inferred(b, a).pairs} == there


def test_a_pattern_that_holds_for_more_layers_scores_higher() -> None:
    lines = [("layers.#.mixer", "blocks.#.mixing", ((D, D),))]
    few, many = (inferred(*model_of(lines, layers=n)[:2]).pairs[0].score for n in (2, 12))
    assert few < many < 1


def test_what_has_nothing_in_common_stays_added_and_removed() -> None:
    assert inferred({"a.b": T((5,)), "c.d": T((5,))}, {"x.y": T((6,)), "z": T((5,), "int64")}).pairs == ()
