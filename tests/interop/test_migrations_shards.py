"""Language models whose tensors are cut up or interleaved: Llama of several ranks, Falcon's groups of heads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])

BY_ROWS = ("wq.weight", "wk.weight", "wv.weight", "w1.weight", "w3.weight", "output.weight")
BY_COLUMNS = ("wo.weight", "w2.weight")


def scrambled(model: Any) -> Any:
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            parameter.add_(0.1 * noise)
    return model.eval()


# --- Llama of several ranks ----------------------------------------------------------------------------


@pytest.fixture
def llama(framework: Any) -> Any:
    transformers = framework("transformers")
    config = transformers.LlamaConfig(
        vocab_size=16, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=8,
        num_key_value_heads=4, rms_norm_eps=1e-6, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return scrambled(transformers.LlamaForCausalLM(config))


def parts(whole: dict[str, Any], ranks: int, embedding: int) -> list[dict[str, Any]]:
    """What each rank holds, as the layers of fairscale that Meta's model is made of cut their weights."""

    def cut(key: str, value: Any) -> list[Any]:
        if key.endswith(BY_ROWS):
            return list(value.chunk(ranks, 0))
        if key.endswith(BY_COLUMNS):
            return list(value.chunk(ranks, 1))
        return list(value.chunk(ranks, embedding)) if "tok_emb" in key else [value] * ranks

    cuts = {key: cut(key, value) for key, value in whole.items()}
    return [{key: pieces[rank].clone() for key, pieces in cuts.items()} for rank in range(ranks)]


@pytest.mark.parametrize(("ranks", "embedding"), [(2, 1), (4, 0)], ids=["Llama 2", "Llama 3"])
def test_ranks_of_llama_are_joined_and_compute_in_transformers(
    llama: Any, migrate: Any, tmp_path: Path, ranks: int, embedding: int
) -> None:
    torch.save(llama.state_dict(), tmp_path / "hf.pth")
    whole = torch.load(
        migrate(tmp_path / "hf.pth", "llama-meta-to-hf", "--reverse", n_heads=8, n_kv_heads=4), weights_only=True
    )
    whole["rope.freqs"] = torch.ones(1)
    folder = tmp_path / "llama"
    folder.mkdir()
    for rank, part in enumerate(parts(whole, ranks, embedding)):
        torch.save(part, folder / f"consolidated.{rank:02}.pth")
    (folder / "params.json").write_text(json.dumps({"dim": 16, "n_heads": 8, "n_kv_heads": 4, "n_layers": 2}))
    joined = migrate(folder, "llama-meta-join", output=tmp_path / "joined.pth")
    saved = torch.load(joined, weights_only=True)
    assert saved.keys() == {"model", "params"}
    assert saved["model"].keys() == whole.keys()
    assert all(torch.equal(saved["model"][key], value) for key, value in whole.items())
    with torch.no_grad():
        expected = llama(TOKENS).logits
        scrambled(llama)
        made = torch.load(migrate(joined, "llama-meta-to-hf"), weights_only=True)
        llama.load_state_dict(made["model"], strict=True)
        torch.testing.assert_close(llama(TOKENS).logits, expected, **CLOSE)


# --- Falcon and litgpt ---------------------------------------------------------------------------------


SIZES = {"7b": (4, 1), "40b": (8, 2)}
"""Attention heads, and heads for keys and values."""


def falcon(framework: Any, size: str) -> Any:
    transformers = framework("transformers")
    heads, groups = SIZES[size]
    config = transformers.FalconConfig(
        vocab_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=heads, num_kv_heads=groups,
        new_decoder_architecture=size == "40b", multi_query=size == "7b", parallel_attn=True, bias=False,
        alibi=False, hidden_dropout=0.0, attention_dropout=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return scrambled(transformers.FalconForCausalLM(config))


@pytest.fixture
def litgpt(framework: Any) -> Any:
    """Not among the requirements: its own pin of huggingface_hub excludes the one that transformers needs."""
    return framework("litgpt")


def litgpt_of(litgpt: Any, size: str) -> Any:
    heads, groups = SIZES[size]
    config = litgpt.Config.from_name(
        f"falcon-{size}", block_size=16, vocab_size=16, padded_vocab_size=16, n_layer=2, n_embd=32, n_head=heads,
        n_query_groups=groups, head_size=32 // heads,
    )  # fmt: skip
    return litgpt.GPT(config).eval()


def given(size: str) -> dict[str, int]:
    heads, groups = SIZES[size]
    return {"n_heads": heads, "n_groups": groups, "width": 32} if size == "40b" else {}


@pytest.mark.parametrize("size", SIZES)
def test_falcon_computes_the_same_in_litgpt(
    framework: Any, litgpt: Any, migrate: Any, tmp_path: Path, size: str
) -> None:
    model = falcon(framework, size)
    torch.save(model.state_dict(), tmp_path / "falcon.pth")
    made = migrate(tmp_path / "falcon.pth", f"falcon-{size}-to-litgpt", **given(size))
    other = litgpt_of(litgpt, size)
    other.load_state_dict(torch.load(made, weights_only=True), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(other(TOKENS), model(TOKENS).logits, **CLOSE)


@pytest.mark.parametrize("size", SIZES)
def test_falcon_becomes_what_transformers_takes_its_heads_for(
    framework: Any, migrate: Any, equal: Any, tmp_path: Path, size: str
) -> None:
    """transformers' own splitting of the fused rows is the oracle; and back, bit for bit, with the optimizer."""
    model = falcon(framework, size)
    optimizer = torch.optim.AdamW(model.parameters())
    model(TOKENS, labels=TOKENS).loss.backward()
    optimizer.step()
    saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(saved, tmp_path / "falcon.pth")
    path = migrate(tmp_path / "falcon.pth", f"falcon-{size}-to-litgpt", **given(size))
    made = torch.load(path, weights_only=True)
    attention = model.transformer.h[1].self_attention
    rows = torch.arange(attention.query_key_value.weight.shape[0], dtype=torch.float32)
    heads, groups = SIZES[size]
    query, key, value = (part.flatten() for part in attention._split_heads(rows[None, None]))
    if size == "40b":  # transformers repeats keys and values for each head of a group
        key, value = (part.reshape(groups, heads // groups, -1)[:, 0].flatten() for part in (key, value))
    order = torch.cat([query, key, value]).long()
    fused = attention.query_key_value.weight.detach()
    assert torch.equal(made["model"]["transformer.h.1.attn.qkv.weight"], fused[order])
    back = migrate(path, f"falcon-{size}-to-litgpt", "--reverse", **given(size))
    assert equal(torch.load(back), torch.load(tmp_path / "falcon.pth"))


def test_neox_computes_the_same_in_litgpt(framework: Any, litgpt: Any, migrate: Any, tmp_path: Path) -> None:
    transformers = framework("transformers")
    config = transformers.GPTNeoXConfig(
        vocab_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=16, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = scrambled(transformers.GPTNeoXForCausalLM(config))
    torch.save(model.state_dict(), tmp_path / "neox.pth")
    made = migrate(tmp_path / "neox.pth", "neox-to-litgpt", n_heads=4)
    other = litgpt.GPT(
        litgpt.Config.from_name(
            "pythia-14m", block_size=16, vocab_size=16, padded_vocab_size=16, n_layer=2, n_embd=32, n_head=4,
            intermediate_size=48,
        )
    ).eval()  # fmt: skip
    other.load_state_dict(torch.load(made, weights_only=True), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(other(TOKENS), model(TOKENS).logits, **CLOSE)
