"""Language models carried from one library to another: loaded strictly, computing the same, trained on alike."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
nn, functional = torch.nn, torch.nn.functional

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
"""Where two libraries multiply in another order, float32 results differ in their last bits."""

TOKENS = 11


def batch(number: int) -> Any:
    """Token ids, the same for a number in every process."""
    return torch.randint(0, TOKENS, (2, 6), generator=torch.Generator().manual_seed(number))


def next_token(model: Any, number: int) -> Any:
    """The mean loss of predicting each token from those before it."""
    ids = batch(number)
    logits = logits_of(model, ids)
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def logits_of(model: Any, ids: Any) -> Any:
    found = model(ids)
    return found if isinstance(found, torch.Tensor) else found.logits


def scrambled(model: Any) -> Any:
    """Every parameter at random: a norm whose weight is all ones would hide where it went."""
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            parameter.copy_(parameter + 0.1 * noise)
    return model


def adamw(model: Any) -> Any:
    return torch.optim.AdamW(model.parameters(), lr=1e-2)


# --- models as their authors wrote them: names and arithmetic -------------------------------------------


class NanoAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads = heads

    def forward(self, x: Any) -> Any:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.c_attn(x).chunk(3, -1))
        found = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(found.transpose(1, 2).flatten(2))


class NanoMlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Any) -> Any:
        return self.c_proj(functional.gelu(self.c_fc(x)))


class NanoBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), NanoAttention(width, heads)
        self.ln_2, self.mlp = nn.LayerNorm(width), NanoMlp(width)

    def forward(self, x: Any) -> Any:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class NanoGpt(nn.Module):
    """The names, ties and order of karpathy/nanoGPT's model.py."""

    def __init__(self, width: int = 8, heads: int = 2, layers: int = 2, context: int = 16) -> None:
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(TOKENS, width),
                "wpe": nn.Embedding(context, width),
                "h": nn.ModuleList([NanoBlock(width, heads) for _ in range(layers)]),
                "ln_f": nn.LayerNorm(width),
            }
        )
        self.lm_head = nn.Linear(width, TOKENS, bias=False)
        self.transformer.wte.weight = self.lm_head.weight

    def forward(self, ids: Any) -> Any:
        x = self.transformer.wte(ids) + self.transformer.wpe(torch.arange(ids.shape[1]))
        for block in self.transformer.h:
            x = block(x)
        return self.lm_head(self.transformer.ln_f(x))


class MetaNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Any) -> Any:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


def linear(width: int, out: int) -> Any:
    return nn.Linear(width, out, bias=False)


class MetaAttention(nn.Module):
    """Rotary embedding as Meta computes it: neighbouring pairs are complex numbers."""

    def __init__(self, width: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.size = heads, kv_heads, width // heads
        self.wq, self.wk = linear(width, width), linear(width, kv_heads * self.size)
        self.wv, self.wo = linear(width, kv_heads * self.size), linear(width, width)

    def rotated(self, x: Any) -> Any:
        angles = 1.0 / 10000.0 ** (torch.arange(0, self.size, 2).float() / self.size)
        turns = torch.polar(
            torch.ones(x.shape[1], self.size // 2), torch.outer(torch.arange(x.shape[1]).float(), angles)
        )
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * turns[:, None]).flatten(3)

    def forward(self, x: Any) -> Any:
        q, k, v = (part(x).unflatten(-1, (-1, self.size)) for part in (self.wq, self.wk, self.wv))
        q, k = self.rotated(q), self.rotated(k)
        k, v = (part.repeat_interleave(self.heads // self.kv_heads, 2) for part in (k, v))
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        scores = q @ k.transpose(2, 3) / math.sqrt(self.size)
        scores = scores.masked_fill(torch.ones(x.shape[1], x.shape[1]).triu(1).bool(), -math.inf)
        return self.wo((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class MetaFeedForward(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.w1, self.w2, self.w3 = linear(width, inner), linear(inner, width), linear(width, inner)

    def forward(self, x: Any) -> Any:
        return self.w2(functional.silu(self.w1(x)) * self.w3(x))


class MetaBlock(nn.Module):
    def __init__(self, width: int, heads: int, kv_heads: int, inner: int) -> None:
        super().__init__()
        self.attention = MetaAttention(width, heads, kv_heads)
        self.feed_forward = MetaFeedForward(width, inner)
        self.attention_norm, self.ffn_norm = MetaNorm(width), MetaNorm(width)

    def forward(self, x: Any) -> Any:
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.ffn_norm(x))


class MetaLlama(nn.Module):
    """The names and order of meta-llama/llama's model.py, on one device."""

    def __init__(self, width: int = 16, heads: int = 4, kv_heads: int = 2, inner: int = 24) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(TOKENS, width)
        self.layers = nn.ModuleList([MetaBlock(width, heads, kv_heads, inner) for _ in range(2)])
        self.norm = MetaNorm(width)
        self.output = linear(width, TOKENS)

    def forward(self, ids: Any) -> Any:
        x = self.tok_embeddings(ids)
        for layer in self.layers:
            x = layer(x)
        return self.output(self.norm(x))


# --- GPT-2 and nanoGPT -----------------------------------------------------------------------------------


@pytest.fixture
def gpt2(framework: Any) -> Any:
    transformers = framework("transformers")
    config = transformers.GPT2Config(
        vocab_size=TOKENS,
        n_positions=16,
        n_embd=8,
        n_layer=2,
        n_head=2,
        activation_function="gelu",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    return scrambled(transformers.GPT2LMHeadModel(config))


@pytest.fixture
def gpt2_saved(gpt2: Any, train: Any, tmp_path: Path) -> Path:
    optimizer = adamw(gpt2)
    train(gpt2, optimizer, next_token, range(3))
    torch.save({"model": gpt2.state_dict(), "optimizer": optimizer.state_dict(), "iter_num": 3}, tmp_path / "gpt2.pt")
    return tmp_path / "gpt2.pt"


def resumed(model: Any, path: Path) -> Any:
    """The model with an optimizer, both from a file, strictly."""
    saved = torch.load(path, weights_only=True)
    model.load_state_dict(saved["model"], strict=True)
    optimizer = adamw(model)
    optimizer.load_state_dict(saved["optimizer"])
    return optimizer


def test_gpt2_to_nanogpt_computes_and_trains_the_same(gpt2: Any, gpt2_saved: Path, migrate: Any, train: Any) -> None:
    nano = NanoGpt()
    optimizer = resumed(nano, migrate(gpt2_saved, "gpt2-hf-to-nanogpt"))
    gpt2.eval()
    torch.testing.assert_close(nano(batch(9)), gpt2(batch(9)).logits, **CLOSE)
    assert nano.lm_head.weight is nano.transformer.wte.weight
    expected = train(gpt2, resumed(gpt2, gpt2_saved), next_token, range(3, 6))
    assert train(nano, optimizer, next_token, range(3, 6)) == pytest.approx(expected, rel=1e-4)


def test_gpt2_comes_back_from_nanogpt_bit_for_bit(gpt2_saved: Path, migrate: Any, equal: Any) -> None:
    nano = migrate(gpt2_saved, "gpt2-hf-to-nanogpt")
    back = migrate(nano, "gpt2-hf-to-nanogpt", "--reverse")
    assert equal(torch.load(back), torch.load(gpt2_saved))


def test_nanogpt_to_gpt2_computes_the_same(gpt2: Any, migrate: Any, tmp_path: Path) -> None:
    nano = scrambled(NanoGpt())
    torch.save(nano.state_dict(), tmp_path / "nano.pt")
    made = migrate(tmp_path / "nano.pt", "gpt2-hf-to-nanogpt", "--reverse")
    gpt2.load_state_dict(torch.load(made, weights_only=True), strict=True)
    gpt2.eval()
    torch.testing.assert_close(gpt2(batch(9)).logits, nano(batch(9)), **CLOSE)


def test_gpt2_as_the_hub_has_it_lacks_the_head_and_gets_it_tied(gpt2: Any, migrate: Any, tmp_path: Path) -> None:
    """save_pretrained leaves lm_head out; old files hold masks; the bare model has no prefix."""
    state = {k.removeprefix("transformer."): v for k, v in gpt2.state_dict().items() if k != "lm_head.weight"}
    for layer in range(2):
        state[f"h.{layer}.attn.bias"] = torch.ones(16, 16).tril()[None, None]
    torch.save(state, tmp_path / "hub.pt")
    made = migrate(migrate(tmp_path / "hub.pt", "gpt2-bare-to-lm"), "gpt2-hf-to-nanogpt")
    saved = torch.load(made, weights_only=True)
    assert saved["lm_head.weight"].data_ptr() == saved["transformer.wte.weight"].data_ptr()
    nano = NanoGpt()
    nano.load_state_dict(saved, strict=True)
    gpt2.eval()
    torch.testing.assert_close(nano(batch(9)), gpt2(batch(9)).logits, **CLOSE)


# --- Llama ---------------------------------------------------------------------------------------------


@pytest.fixture
def llama(framework: Any) -> Any:
    transformers = framework("transformers")
    config = transformers.LlamaConfig(
        vocab_size=TOKENS,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-6,
        bos_token_id=0,
        eos_token_id=0,
    )
    return scrambled(transformers.LlamaForCausalLM(config))


@pytest.fixture
def meta_saved(train: Any, tmp_path: Path) -> tuple[Any, Path]:
    model = scrambled(MetaLlama())
    optimizer = adamw(model)
    train(model, optimizer, next_token, range(3))
    saved = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "params": {"n_heads": 4, "n_kv_heads": 2},
    }
    torch.save(saved, tmp_path / "meta.pt")
    return model, tmp_path / "meta.pt"


def test_llama_of_meta_to_transformers_computes_the_same(
    llama: Any, meta_saved: tuple[Any, Path], migrate: Any
) -> None:
    """Heads are looked up in the file: params.n_heads and params.n_kv_heads."""
    model, path = meta_saved
    saved = torch.load(migrate(path, "llama-meta-to-hf"), weights_only=True)
    llama.load_state_dict(saved["model"], strict=True)
    torch.testing.assert_close(llama(batch(9)).logits, model(batch(9)), **CLOSE)


def test_llama_of_meta_trains_on_in_transformers(
    llama: Any, meta_saved: tuple[Any, Path], migrate: Any, train: Any, tmp_path: Path
) -> None:
    """The two order their parameters otherwise (down_proj before up_proj), so the target's order is asked for."""
    model, path = meta_saved
    torch.save(llama.state_dict(), tmp_path / "target.pt")
    made = migrate(path, "llama-meta-to-hf", "--to", str(tmp_path / "target.pt"))
    optimizer = resumed(llama, made)
    expected = train(model, resumed(model, path), next_token, range(3, 6))
    assert train(llama, optimizer, next_token, range(3, 6)) == pytest.approx(expected, rel=1e-4)


def test_llama_comes_back_to_meta_bit_for_bit(meta_saved: tuple[Any, Path], migrate: Any, equal: Any) -> None:
    _, path = meta_saved
    back = migrate(migrate(path, "llama-meta-to-hf"), "llama-meta-to-hf", "--reverse")
    assert equal(torch.load(back), torch.load(path))


def test_llama_reaches_torchtune_by_either_way(meta_saved: tuple[Any, Path], migrate: Any, equal: Any) -> None:
    """Meta's layout and torchtune's are one, so the rows of q and k must come back to where they were."""
    _, path = meta_saved
    direct = torch.load(migrate(path, "llama-meta-to-torchtune"))
    around = torch.load(migrate(migrate(path, "llama-meta-to-hf"), "llama-hf-to-torchtune", n_heads=4, n_kv_heads=2))
    assert equal(around["model"], direct["model"])


# --- Mixtral -------------------------------------------------------------------------------------------


@pytest.fixture
def mixtral(framework: Any) -> Any:
    transformers = framework("transformers")
    config = transformers.MixtralConfig(
        vocab_size=TOKENS,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=11,
        bos_token_id=0,
        eos_token_id=0,
    )
    return scrambled(transformers.MixtralForCausalLM(config))


def test_mixtral_of_a_file_to_a_live_model(
    mixtral: Any, migrate: Any, equal: Any, framework: Any, tmp_path: Path
) -> None:
    """transformers writes one key for each of eleven experts, and holds them packed: its own loader is the oracle."""
    mixtral.save_pretrained(tmp_path / "saved")
    old = framework("safetensors.torch").load_file(tmp_path / "saved" / "model.safetensors")
    assert "model.layers.0.block_sparse_moe.experts.10.w1.weight" in old
    torch.save(old, tmp_path / "old.pt")
    made = migrate(tmp_path / "old.pt", "mixtral-experts-packed")
    new = torch.load(made, weights_only=True)
    expected = mixtral.state_dict()
    assert new.keys() == expected.keys()
    assert all(equal(new[key], expected[key]) for key in new)
    type(mixtral)(mixtral.config).load_state_dict(new, strict=True)
    back = torch.load(migrate(made, "mixtral-experts-packed", "--reverse"))
    assert back.keys() == old.keys(), "in another order: the file's experts stand between each other"
    assert all(equal(back[key], old[key]) for key in old)


# --- names alone ----------------------------------------------------------------------------------------


def test_bert_with_the_names_of_tensorflow(framework: Any, migrate: Any, equal: Any, tmp_path: Path) -> None:
    transformers = framework("transformers")
    config = transformers.BertConfig(
        vocab_size=TOKENS, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12
    )
    model = scrambled(transformers.BertModel(config)).eval()
    old = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for key, value in model.state_dict().items()
    }
    torch.save(old, tmp_path / "old.pt")
    made = migrate(tmp_path / "old.pt", "bert-tf-names")
    other = transformers.BertModel(config).eval()
    other.load_state_dict(torch.load(made, weights_only=True), strict=True)
    assert torch.equal(other(batch(9)).last_hidden_state, model(batch(9)).last_hidden_state)
    assert equal(torch.load(migrate(made, "bert-tf-names", "--reverse")), torch.load(tmp_path / "old.pt"))


class WhisperAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, width), linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)


class WhisperBlock(nn.Module):
    def __init__(self, width: int, cross: bool) -> None:
        super().__init__()
        self.attn, self.attn_ln = WhisperAttention(width), nn.LayerNorm(width)
        if cross:
            self.cross_attn, self.cross_attn_ln = WhisperAttention(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.mlp_ln = nn.LayerNorm(width)


class OpenAiWhisper(nn.Module):
    """The names of openai/whisper's model.py; nothing is computed with it."""

    def __init__(self, width: int = 8, mels: int = 4) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Module(), nn.Module()
        self.encoder.conv1 = nn.Conv1d(mels, width, 3, padding=1)
        self.encoder.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.encoder.register_buffer("positional_embedding", torch.randn(10, width))
        self.encoder.blocks = nn.ModuleList([WhisperBlock(width, False) for _ in range(2)])
        self.encoder.ln_post = nn.LayerNorm(width)
        self.decoder.token_embedding = nn.Embedding(TOKENS, width)
        self.decoder.positional_embedding = nn.Parameter(torch.randn(9, width))
        self.decoder.blocks = nn.ModuleList([WhisperBlock(width, True) for _ in range(2)])
        self.decoder.ln = nn.LayerNorm(width)


def test_whisper_of_openai_loads_strictly_in_transformers(
    framework: Any, migrate: Any, equal: Any, tmp_path: Path
) -> None:
    transformers = framework("transformers")
    config = transformers.WhisperConfig(
        vocab_size=TOKENS, d_model=8, num_mel_bins=4, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
        max_source_positions=10, max_target_positions=9, pad_token_id=0, bos_token_id=0, eos_token_id=0,
        decoder_start_token_id=0, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    old = scrambled(OpenAiWhisper())
    torch.save({"dims": {"n_mels": 4}, "model_state_dict": old.state_dict()}, tmp_path / "tiny.pt")
    made = migrate(tmp_path / "tiny.pt", "whisper-openai-to-hf")
    model = transformers.WhisperForConditionalGeneration(config)
    model.load_state_dict(torch.load(made, weights_only=True)["model_state_dict"], strict=True)
    block, layer = old.decoder.blocks[1], model.model.decoder.layers[1]
    assert torch.equal(layer.encoder_attn.q_proj.weight, block.cross_attn.query.weight)
    assert torch.equal(layer.final_layer_norm.weight, block.mlp_ln.weight)
    assert torch.equal(layer.fc2.weight, block.mlp[2].weight)
    assert model.proj_out.weight is model.model.decoder.embed_tokens.weight
    back = migrate(made, "whisper-openai-to-hf", "--reverse")
    assert equal(torch.load(back), torch.load(tmp_path / "tiny.pt"))


def test_neox_regroups_heads_into_blocks(framework: Any, migrate: Any, equal: Any, tmp_path: Path) -> None:
    """The blocks are those that transformers itself sees: query of head h is rows 3h to 3h+1 of its size."""
    transformers = framework("transformers")
    config = transformers.GPTNeoXConfig(
        vocab_size=TOKENS, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = scrambled(transformers.GPTNeoXForCausalLM(config))
    state = {key.replace("lm_head", "embed_out"): value for key, value in model.state_dict().items()}
    torch.save(state, tmp_path / "neox.pt")
    made = migrate(tmp_path / "neox.pt", "neox-to-litgpt", n_heads=3)
    new = torch.load(made, weights_only=True)
    fused = model.gpt_neox.layers[1].attention.query_key_value
    for name, part in (("weight", fused.weight), ("bias", fused.bias)):
        heads = part.unflatten(0, (3, 3, 4))
        expected = torch.cat([heads[:, which].flatten(0, 1) for which in range(3)])
        assert equal(new[f"transformer.h.1.attn.qkv.{name}"], expected.detach())
    assert not [key for key in new if key.startswith("gpt_neox") or "embed_out" in key]
    back = migrate(made, "neox-to-litgpt", "--reverse", n_heads=3)
    assert equal(torch.load(back), torch.load(tmp_path / "neox.pt"))


def fairseq_name(key: str) -> str:
    """What fairseq calls a parameter of the bare model; written against its wav2vec2.py."""
    pairs = [
        ("masked_spec_embed", "mask_emb"),
        ("feature_projection.layer_norm.", "layer_norm."),
        ("feature_projection.projection.", "post_extract_proj."),
        ("encoder.pos_conv_embed.conv.", "encoder.pos_conv.0."),
    ]
    for new, old in pairs:
        if key.startswith(new):
            return old + key.removeprefix(new)
    head, _, rest = key.partition(".conv_layers.")
    if rest:
        number, _, rest = rest.partition(".")
        return f"{head}.conv_layers.{number}." + rest.replace("conv.", "0.").replace("layer_norm.", "2.1.")
    for new, old in [
        (".attention.", ".self_attn."),
        (".feed_forward.intermediate_dense.", ".fc1."),
        (".feed_forward.output_dense.", ".fc2."),
    ]:
        key = key.replace(new, old)
    if key.startswith("encoder.layers.") and ".final_layer_norm." not in key:
        key = key.replace(".layer_norm.", ".self_attn_layer_norm.")
    return key


def test_wav2vec2_of_fairseq_computes_the_same(framework: Any, migrate: Any, tmp_path: Path) -> None:
    """fairseq keeps the old weight norm, so the file goes through two presets."""
    transformers = framework("transformers")
    config = transformers.Wav2Vec2Config(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12, conv_dim=(8, 8),
        conv_stride=(5, 2), conv_kernel=(10, 3), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True, num_feat_extract_layers=2,
    )  # fmt: skip
    model = scrambled(transformers.Wav2Vec2Model(config)).eval()
    weight = "parametrizations.weight.original"
    old = {
        fairseq_name(key).replace(f"{weight}0", "weight_g").replace(f"{weight}1", "weight_v"): value
        for key, value in model.state_dict().items()
    }
    old["quantizer.vars"] = torch.ones(1, 4, 8)
    assert {"encoder.pos_conv.0.weight_g", "feature_extractor.conv_layers.1.2.1.bias"} <= old.keys()
    torch.save(old, tmp_path / "fairseq.pt")
    made = migrate(tmp_path / "fairseq.pt", "wav2vec2-fairseq-to-hf")
    made = migrate(made, "weight-norm-to-parametrizations")
    other = transformers.Wav2Vec2Model(config).eval()
    other.load_state_dict(torch.load(made, weights_only=True), strict=True)
    sound = torch.randn(1, 400, generator=torch.Generator().manual_seed(3))
    assert torch.equal(other(sound).last_hidden_state, model(sound).last_hidden_state)


def test_a_padded_vocabulary_stays_tied_and_trains_on(
    gpt2_saved: Path, migrate: Any, tmp_path: Path, train: Any
) -> None:
    """Rows of zeros, for the moments too; the head shares the embedding's storage as before."""
    nano = migrate(gpt2_saved, "gpt2-hf-to-nanogpt")
    made = migrate(nano, "pad-vocabulary", old=TOKENS, new=16)
    saved, before = torch.load(made, weights_only=True), torch.load(nano, weights_only=True)
    weight = saved["model"]["transformer.wte.weight"]
    assert saved["model"]["lm_head.weight"].data_ptr() == weight.data_ptr()
    assert torch.equal(weight[:TOKENS], before["model"]["transformer.wte.weight"])
    assert not weight[TOKENS:].any()
    moment = saved["optimizer"]["state"][0]["exp_avg"]
    assert torch.equal(moment[:TOKENS], before["optimizer"]["state"][0]["exp_avg"])
    assert not moment[TOKENS:].any()
    model = NanoGpt()
    model.lm_head = nn.Linear(8, 16, bias=False)
    model.transformer.wte = nn.Embedding(16, 8)
    model.transformer.wte.weight = model.lm_head.weight
    losses = train(model, resumed(model, made), next_token, range(3, 5))
    assert all(math.isfinite(loss) for loss in losses)
