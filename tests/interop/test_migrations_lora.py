"""Adapters of kohya's scripts in diffusers, whose own conversion of them is the oracle."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

PRESET = "kohya-lora-to-diffusers"
RANK = 2


@pytest.fixture
def unet(framework: Any) -> Any:
    """A U-Net whose adapters diffusers loads with peft."""
    framework("diffusers"), framework("peft")
    kind = importlib.import_module("diffusers.models.unets.unet_2d_condition").UNet2DConditionModel
    torch.manual_seed(6)
    return kind(
        block_out_channels=(4, 8, 8, 8), layers_per_block=2, cross_attention_dim=6, attention_head_dim=2,
        norm_num_groups=2, sample_size=8,
    ).eval()  # fmt: skip


def adapters(modules: dict[str, Any], prefix: str, alphas: tuple[float, ...]) -> dict[str, Any]:
    """Weights as kohya's network saves them: dots are underscores, each layer has an alpha."""
    found = {}
    for number, (name, module) in enumerate(modules.items()):
        key = f"{prefix}_{name.replace('.', '_')}"
        weight = module.weight
        kernel = (1,) * (weight.dim() - 2)
        found[f"{key}.lora_down.weight"] = torch.randn(RANK, *weight.shape[1:])
        found[f"{key}.lora_up.weight"] = torch.randn(weight.shape[0], RANK, *kernel)
        found[f"{key}.alpha"] = torch.tensor(alphas[number % len(alphas)])
    return found


def delta(state: dict[str, Any], key: str) -> Any:
    """What an adapter adds to its layer, as kohya's scripts compute it."""
    up, down = state[f"{key}.lora_up.weight"], state[f"{key}.lora_down.weight"]
    return (up.flatten(1) @ down.flatten(1) * state[f"{key}.alpha"] / RANK).unflatten(1, down.shape[1:])


def adaptable(unet: Any) -> dict[str, Any]:
    """Every linear layer and convolution that kohya's scripts adapt."""
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    return {name: module for name, module in unet.named_modules() if isinstance(module, kinds)}


def output(unet: Any) -> Any:
    noise = torch.Generator().manual_seed(1)
    sample, text = torch.randn(1, 4, 8, 8, generator=noise), torch.randn(1, 3, 6, generator=noise)
    with torch.no_grad():
        return unet(sample, 7, text).sample


def test_adapters_of_kohya_compute_the_same_as_when_diffusers_converts_them(
    unet: Any, migrate: Any, tmp_path: Path
) -> None:
    convert = importlib.import_module("diffusers.loaders.lora_conversion_utils")
    # The scripts leave out what is not in a block; diffusers converts that only for XL.
    layers = {name: module for name, module in adaptable(unet).items() if "blocks" in name or "mid_" in name}
    state = adapters(layers, "lora_unet", alphas=(3.0,))
    torch.save(state, tmp_path / "kohya.pt")
    made = torch.load(migrate(tmp_path / "kohya.pt", PRESET), weights_only=True)
    assert made.keys() == {f"unet.{name}.{part}.weight" for name in layers for part in ("lora_A", "lora_B")}
    plain = output(unet)
    unet.load_lora_adapter(made, prefix="unet")
    found = output(unet)
    unet.unload_lora()
    assert not torch.allclose(found, plain, atol=1e-2)
    expected, alphas = convert._convert_non_diffusers_lora_to_diffusers(dict(state))
    unet.load_lora_adapter(expected, prefix="unet", network_alphas=alphas)
    torch.testing.assert_close(found, output(unet), rtol=1e-4, atol=1e-5)


def test_each_layer_has_an_alpha_of_its_own(unet: Any, migrate: Any, tmp_path: Path) -> None:
    layers = {name: module for name, module in adaptable(unet).items() if "blocks.1" in name}
    state = adapters(layers, "lora_unet", alphas=(1.0, 2.0, 5.0))
    torch.save(state, tmp_path / "kohya.pt")
    unet.load_lora_adapter(torch.load(migrate(tmp_path / "kohya.pt", PRESET)), prefix="unet")
    for name in layers:
        found = unet.get_submodule(name).get_delta_weight("default_0")
        torch.testing.assert_close(found, delta(state, f"lora_unet_{name.replace('.', '_')}"))


def test_adapters_of_xl_have_the_names_of_its_own_code(migrate: Any, unet: Any, tmp_path: Path) -> None:
    """kohya's U-Net of XL is named as Stability's; diffusers' mapping of blocks is the oracle."""
    convert = importlib.import_module("diffusers.loaders.lora_conversion_utils")
    names = [
        "input_blocks_0_0", "time_embed_0", "label_emb_0_2", "input_blocks_1_0_in_layers_2", "input_blocks_3_0_op",
        "input_blocks_4_0_skip_connection", "input_blocks_4_1_proj_in",
        "input_blocks_8_1_transformer_blocks_9_attn2_to_out_0", "middle_block_0_emb_layers_1",
        "middle_block_1_transformer_blocks_0_ff_net_0_proj", "middle_block_2_out_layers_3",
        "output_blocks_0_0_in_layers_2",
        "output_blocks_2_1_transformer_blocks_3_attn1_to_q", "output_blocks_2_2_conv", "output_blocks_5_2_conv",
        "output_blocks_3_1_proj_out", "output_blocks_8_0_out_layers_3", "out_2",
    ]  # fmt: skip
    state: dict[str, Any] = {}
    for name in names:
        state[f"lora_unet_{name}.lora_down.weight"] = torch.randn(RANK, 4)
        state[f"lora_unet_{name}.lora_up.weight"] = torch.randn(5, RANK)
    torch.save(state, tmp_path / "xl.pt")
    made = torch.load(migrate(tmp_path / "xl.pt", PRESET), weights_only=True)
    config = type("Config", (), {"layers_per_block": 2})()
    mapped = convert._maybe_map_sgm_blocks_to_diffusers(dict(state), config)
    converted, _ = convert._convert_non_diffusers_lora_to_diffusers(mapped)
    expected = {peft_name(key): value for key, value in converted.items()}
    assert {k for k in made if "emb.layers" in k} == set()
    assert made.keys() == expected.keys()
    assert all(torch.equal(made[key], value) for key, value in expected.items())


def peft_name(key: str) -> str:
    """diffusers' older spelling (``to_q_lora.down``, ``lora.down``) as peft's."""
    for old, new in {
        ".processor": "", "to_out_lora": "to_out.0.lora", "_lora.": ".lora.", ".lora.down.": ".lora_A.",
        ".lora.up.": ".lora_B.",
    }.items():  # fmt: skip
        key = key.replace(old, new)
    return key


def test_adapters_of_text_encoders_are_those_that_peft_adds(framework: Any, migrate: Any, tmp_path: Path) -> None:
    transformers, peft = framework("transformers"), framework("peft")
    config = transformers.CLIPTextConfig(
        hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, vocab_size=20,
        max_position_embeddings=7, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = transformers.CLIPTextModelWithProjection(config).eval()
    targets = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
    layers = {n: m for n, m in model.named_modules() if n.rpartition(".")[2] in targets}
    assert all(name.startswith("text_model.encoder.layers.") for name in layers)
    state = adapters(layers, "lora_te1", (1.0, 3.0)) | adapters(layers, "lora_te2", (1.0, 3.0))
    torch.save(state, tmp_path / "text.pt")
    made = torch.load(migrate(tmp_path / "text.pt", PRESET), weights_only=True)
    wrapped = peft.get_peft_model(
        model, peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=targets, init_lora_weights=False)
    )
    second = {
        f"base_model.model.{key.removeprefix('text_encoder_2.')}": value
        for key, value in made.items()
        if key.startswith("text_encoder_2.")
    }
    assert second.keys() == peft.get_peft_model_state_dict(wrapped).keys()
    assert len(made) == 2 * len(second)
    peft.set_peft_model_state_dict(wrapped, second)
    for name in layers:
        found = wrapped.base_model.model.get_submodule(name).get_delta_weight("default")
        torch.testing.assert_close(found, delta(state, f"lora_te2_{name.replace('.', '_')}"))
