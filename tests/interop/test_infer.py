"""How well infer finds what was done to real architectures: never wrong where certain, and how much it finds.

``python tests/interop/test_infer.py`` prints the table of docs/how-to/find-migration-rules.md.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeAlias

import pytest

from ckpttool import infer
from ckpttool.migration import load

pytestmark = pytest.mark.interop

State: TypeAlias = "dict[str, Any]"
Truth: TypeAlias = "dict[str, tuple[str, ...]]"
LAYERS, WIDTH = 4, 32


@dataclass(frozen=True)
class Changed:
    """What a variant leads to, and for each new key the old ones that it is made of."""

    new: State
    truth: Truth


# --- architectures -----------------------------------------------------------------------------------------------


def models(transformers: Any) -> dict[str, Callable[[], Any]]:
    """Small random models by name; those in ``HELD_OUT`` and ``LATER`` were not looked at as infer was written."""
    t = transformers
    text: dict[str, Any] = {
        "vocab_size": 100,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": 80,
        "max_position_embeddings": 40,
    }
    tokens = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    grouped = {**text, "num_key_value_heads": 2}
    image: dict[str, Any] = {key: text[key] for key in text if key[0] in "hni"}
    t5: dict[str, Any] = {"vocab_size": 100, "d_model": WIDTH, "d_kv": 8, "d_ff": 80, "num_layers": 3, "num_heads": 4}
    whisper: dict[str, Any] = {
        "vocab_size": 100, "d_model": WIDTH, "encoder_layers": 3, "decoder_layers": 3, "num_mel_bins": 16,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 80, "decoder_ffn_dim": 80,
        "max_source_positions": 30, "max_target_positions": 20, "decoder_start_token_id": 0,
        "suppress_tokens": None, "begin_suppress_tokens": None, **tokens,
    }  # fmt: skip
    return {
        "GPT-2": lambda: t.GPT2LMHeadModel(
            t.GPT2Config(vocab_size=100, n_positions=40, n_embd=WIDTH, n_layer=LAYERS, n_head=4, **tokens)
        ),
        "BERT": lambda: t.BertForMaskedLM(t.BertConfig(**text)),
        "Llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**grouped, **tokens)),
        "ViT": lambda: t.ViTForImageClassification(t.ViTConfig(**image, image_size=16, patch_size=4)),
        "Qwen2": lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**grouped, **tokens)),
        "T5": lambda: t.T5ForConditionalGeneration(t.T5Config(**t5, decoder_start_token_id=0, **tokens)),
        "Whisper": lambda: t.WhisperForConditionalGeneration(t.WhisperConfig(**whisper)),
        "OPT": lambda: t.OPTForCausalLM(
            t.OPTConfig(
                vocab_size=100,
                hidden_size=WIDTH,
                num_hidden_layers=LAYERS,
                num_attention_heads=4,
                ffn_dim=80,
                max_position_embeddings=40,
                word_embed_proj_dim=WIDTH,
                **tokens,
            )
        ),
        **later_models(t, text, tokens),
    }


def later_models(t: Any, text: dict[str, Any], tokens: dict[str, int]) -> dict[str, Callable[[], Any]]:
    """Those that were first measured when infer stood: rows of three projections in one, groups of heads, experts,
    two towers that are called alike, convolutions."""
    falcon = {key: text[key] for key in text if key[0] in "hvn"} | {"num_kv_heads": 2, "alibi": False}
    experts = {**text, "num_key_value_heads": 2, "num_local_experts": 4}
    bart = {
        "vocab_size": 100, "d_model": WIDTH, "encoder_layers": 3, "decoder_layers": 3, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 80, "decoder_ffn_dim": 80, "max_position_embeddings": 40,
        "decoder_start_token_id": 0, "forced_eos_token_id": None,
    }  # fmt: skip
    sizes = {"hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 3, 1], "num_labels": 2}
    return {
        "GPT-NeoX": lambda: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**text, **tokens)),
        "Falcon": lambda: t.FalconForCausalLM(t.FalconConfig(**falcon, new_decoder_architecture=True, **tokens)),
        "Mixtral": lambda: t.MixtralForCausalLM(t.MixtralConfig(**experts, **tokens)),
        "BART": lambda: t.BartForConditionalGeneration(t.BartConfig(**bart, **tokens)),
        "ConvNeXt": lambda: t.ConvNextForImageClassification(t.ConvNextConfig(**sizes, patch_size=2)),
    }


TUNED_ON = ("GPT-2", "BERT", "Llama", "ViT")
HELD_OUT = ("Qwen2", "T5", "Whisper", "OPT")
LATER = ("GPT-NeoX", "Falcon", "Mixtral", "BART", "ConvNeXt")
CONV1D = ("c_attn", "c_proj", "c_fc")
"""GPT-2's matrices that other code stores transposed."""


def batch(torch: Any, name: str) -> dict[str, Any]:
    random = torch.Generator().manual_seed(1)
    if name in ("ViT", "ConvNeXt"):
        pixels = torch.randn(4, 3, 16, 16, generator=random)
        return {"pixel_values": pixels, "labels": torch.tensor([0, 1, 0, 1])}
    ids = torch.randint(3, 100, (4, 12), generator=random)
    if name == "Whisper":
        return {"input_features": torch.randn(4, 16, 60, generator=random), "labels": ids}
    return {"input_ids": ids, "labels": ids}


def trained(torch: Any, model: Any, name: str, steps: int = 5) -> State:
    """The state after real training steps."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    inputs = batch(torch, name)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(**inputs).loss.backward()
        optimizer.step()
    return {key: value.clone() for key, value in model.state_dict().items()}


# --- variants ----------------------------------------------------------------------------------------------------

OTHER_WORDS = {
    "transformer": "decoder_stack", "encoder": "enc", "decoder": "dec", "layer": "blocks", "layers": "blocks",
    "block": "stages", "h": "blocks", "attn": "self_attention", "attention": "attn", "self_attn": "attention",
    "self": "core", "output": "out", "query": "q", "key": "k", "value": "v", "q_proj": "query", "k_proj": "key",
    "v_proj": "value", "o_proj": "out", "out_proj": "out", "dense": "linear", "mlp": "feed_forward",
    "intermediate": "ffn_in", "ln_1": "norm1", "ln_2": "norm2", "ln_f": "final_norm", "norm": "final_norm",
    "LayerNorm": "norm", "layer_norm": "norm", "input_layernorm": "norm1", "post_attention_layernorm": "norm2",
    "layernorm_before": "norm1", "layernorm_after": "norm2", "wte": "tok_embed", "wpe": "pos_embed",
    "embed_tokens": "tok_embed", "word_embeddings": "tok_embed", "lm_head": "head", "classifier": "head",
    "fc1": "up", "fc2": "down", "up_proj": "up", "down_proj": "down", "gate_proj": "gate", "c_fc": "up",
    "wi": "up", "wo": "down", "SelfAttention": "attn", "EncDecAttention": "cross", "embed_positions": "pos_embed",
}  # fmt: skip


def reworded(key: str) -> str:
    return ".".join(OTHER_WORDS.get(word, word) for word in key.split("."))


def opaque(state: State) -> dict[str, str]:
    """Names that say nothing: every word is another one, numbers stay."""
    words = sorted({word for key in state for word in key.split(".") if not word.isdecimal()})
    names = {word: f"m{7 * at % len(words)}x" for at, word in enumerate(words)}
    # A step that divides the count would give one name to two words.
    names = names if len(set(names.values())) == len(words) else {w: f"m{at}x" for at, w in enumerate(words)}
    return {key: ".".join(names.get(word, word) for word in key.split(".")) for key in state}


def renamed(state: State, names: dict[str, str]) -> Changed:
    return Changed({new: state[old].clone() for old, new in names.items()}, {new: (old,) for old, new in names.items()})


def then(first: Changed, second: Callable[[State], Changed]) -> Changed:
    after = second(first.new)
    truth = {new: tuple(o for key in olds for o in first.truth[key]) for new, olds in after.truth.items()}
    return Changed(after.new, truth)


def as_words(state: State) -> Changed:
    return renamed(state, {key: reworded(key) for key in state})


def as_opaque(state: State) -> Changed:
    return renamed(state, opaque(state))


def shuffled(state: State) -> Changed:
    """Renamed, and the keys in the order of the new names, as safetensors sorts them."""
    found = as_words(state)
    return Changed({key: found.new[key] for key in sorted(found.new)}, found.truth)


def wrapped(state: State) -> Changed:
    """Lightning's ``model.`` around DistributedDataParallel's ``module.``."""
    return renamed(state, {key: f"model.module.{key}" for key in state})


def pruned(state: State) -> Changed:
    """The second layer of each stack goes and the rest close ranks; the head is gone too."""

    def name(key: str) -> str | None:
        words = key.split(".")
        at = next((i for i, word in enumerate(words) if word.isdecimal()), None)
        if at is None or words[at - 1] not in ("h", "layer", "layers", "block"):
            return None if key.startswith("classifier") else key
        number = int(words[at])
        words[at] = str(number - (number > 1))
        return None if number == 1 else ".".join(words)

    return renamed(state, {key: new for key in state if (new := name(key)) is not None})


def split(state: State) -> Changed:
    """Fused matrices become two or three; where there are none, an MLP's is cut."""
    new: State = {}
    truth: Truth = {}
    for key, value in state.items():
        module, _, leaf = key.rpartition(".")
        words = module.split(".")
        parts = 3 if words[-1] == "c_attn" else 2 if words[-1] in ("fc1", "up_proj", "wi", "intermediate") else 1
        parts = 2 if words[-2:] == ["intermediate", "dense"] else parts
        dim = 1 if words[-1] == "c_attn" and value.ndim == 2 else 0
        for part, piece in enumerate(value.chunk(parts, dim) if parts > 1 else [value]):
            name = f"{module}_{'qkv'[part]}.{leaf}" if parts > 1 else key
            new[name], truth[name] = piece.clone(), (key,)
    return Changed(new, truth)


def fused(state: State) -> Changed:
    """Queries, keys and values become one matrix."""
    import torch

    sets = (("query", "key", "value"), ("q_proj", "k_proj", "v_proj"), ("q", "k", "v"))
    new, truth = dict(state), {key: (key,) for key in state}
    for key in state:
        words = key.split(".")
        for names in sets:
            olds = [".".join([*words[:-2], name, words[-1]]) for name in names]
            if len(words) > 1 and words[-2] == names[0] and all(old in new for old in olds):
                name = ".".join([*words[:-2], "qkv", words[-1]])
                new[name] = torch.cat([new.pop(old) for old in olds])
                truth[name] = tuple(old for old in olds if truth.pop(old))
    return Changed(new, truth)


def turned(state: State) -> Changed:
    """Every matrix of a linear layer is stored the other way around, under other words."""
    found = as_words(state)
    table = ("embed", "wte", "wpe", "head", "shared", "relative")
    new = {
        key: value.t().clone() if value.ndim == 2 and not any(t in key for t in table) else value
        for key, value in found.new.items()
    }
    return Changed(new, found.truth)


VARIANTS: dict[str, tuple[Callable[[State], Changed], bool, bool]] = {
    # name: what is done, whether training goes on before, whether contents may be looked at
    "wrapped": (wrapped, False, True),
    "other words": (as_words, False, True),
    "other words, sorted": (shuffled, False, True),
    "names that say nothing": (as_opaque, False, True),
    "transposed": (turned, False, True),
    "split": (lambda s: then(split(s), as_words), False, True),
    "fused": (lambda s: then(fused(s), as_words), False, True),
    "pruned": (lambda s: then(pruned(s), as_words), False, True),
    "wrapped, trained on": (wrapped, True, True),
    "other words, trained on": (as_words, True, True),
    "transposed, trained on": (turned, True, True),
    "split, trained on": (lambda s: then(split(s), as_words), True, True),
    "fused, trained on": (lambda s: then(fused(s), as_words), True, True),
    "pruned, trained on": (lambda s: then(pruned(s), as_words), True, True),
    "wrapped, names alone": (wrapped, False, False),
    "other words, names alone": (as_words, False, False),
}


# --- measuring ---------------------------------------------------------------------------------------------------


def counted(old: State, changed: Changed, content: bool, same: Callable[[Any, Any], bool]) -> Counter[str]:
    """New keys by what infer said of them. Old keys of one content (ties, fresh norms) are one where contents count."""
    report = infer({"model": old}, {"model": changed.new}, content=content)
    pairs: dict[str, list[Any]] = {}
    for pair in report.data["pairs"]:  # type: ignore[union-attr]
        pairs.setdefault(pair["to"], []).append(pair)  # type: ignore[index,call-overload]
    found: Counter[str] = Counter(total=len(changed.truth))
    for new, olds in changed.truth.items():
        some = pairs.get(new, [])
        if not some:
            found["asked or missing"] += 1
            continue
        said = [pair["from"] for pair in some]
        right = len(said) == len(olds) and all(
            x == y or (content and same(old[x], old[y])) for x, y in zip(said, olds, strict=True)
        )
        found[f"{some[0]['confidence']} {'right' if right else 'wrong'}"] += 1
    load(str(report.data["text"]), "rules.yaml")
    return found


def measured(torch: Any, transformers: Any, name: str) -> dict[str, Counter[str]]:
    """Every variant of one architecture."""

    def same(a: Any, b: Any) -> bool:
        return a.shape == b.shape and bool(torch.equal(a, b))

    torch.manual_seed(3)
    model = models(transformers)[name]()
    trained(torch, model, name)  # so that no norm and no bias is as it was made
    old = {key: value.clone() for key, value in model.state_dict().items()}
    later = trained(torch, model, name)
    results = {}
    for variant, (change, trains, content) in VARIANTS.items():
        results[variant] = counted(old, change(later if trains else old), content, same)
    return results


@pytest.mark.parametrize("name", [*TUNED_ON, *HELD_OUT, *LATER])
def test_nothing_certain_is_wrong(torch: ModuleType, framework: Any, name: str) -> None:
    for variant, found in measured(torch, framework("transformers"), name).items():
        assert found["certain wrong"] == 0, variant
        if "trained" not in variant and "alone" not in variant:
            assert found["certain right"] >= 0.7 * found["total"], (variant, found)
        assert found["likely wrong"] <= 0.05 * found["total"], (variant, found)


def test_a_lightning_module_around_a_model(torch: ModuleType, framework: Any) -> None:
    transformers, lightning = framework("transformers"), framework("lightning")
    model = models(transformers)["GPT-2"]()

    class Module(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = model

    report = infer({"state_dict": Module().state_dict()}, model.state_dict())
    assert report.exit_code == 0
    assert {pair["confidence"] for pair in report.data["pairs"]} == {"certain"}  # type: ignore[union-attr,call-overload,index]


def table() -> None:
    """Print the tables."""
    import torch
    import transformers

    for names in (TUNED_ON, HELD_OUT, LATER):
        sums: dict[str, Counter[str]] = {variant: Counter() for variant in VARIANTS}
        for name in names:
            for variant, found in measured(torch, transformers, name).items():
                sums[variant] += found
                if "-v" in sys.argv:
                    print(name, variant, dict(found))
        print(f"\n{', '.join(names)}\n")
        print("| variant | keys | certain | likely | asked or not found | certain and wrong | likely and wrong |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        for variant, found in sums.items():
            total = found["total"]
            kinds = ("certain right", "likely right", "asked or missing")
            shares = [f"{100 * found[kind] / total:.0f} %" for kind in kinds]
            cells = [variant, str(total), *shares, str(found["certain wrong"]), str(found["likely wrong"])]
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    table()
