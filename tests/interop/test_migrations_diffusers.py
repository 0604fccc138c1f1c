"""Autoencoders and U-Nets of latent diffusion, against diffusers' own conversion of them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def autoencoder(framework: Any) -> Any:
    framework("diffusers")
    kind = importlib.import_module("diffusers.models.autoencoders.autoencoder_kl").AutoencoderKL
    torch.manual_seed(6)
    return kind(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        layers_per_block=1,
        latent_channels=2,
    )


def agree(found: dict[str, Any], expected: dict[str, Any], equal: Any) -> None:
    """Keys in any order, tensors bit for bit."""
    assert found.keys() == expected.keys()
    assert [key for key in found if not equal(found[key], expected[key])] == []


def test_an_autoencoder_of_latent_diffusion_is_what_diffusers_makes_of_it(
    autoencoder: Any, migrate: Any, equal: Any, tmp_path: Path
) -> None:
    """The old names are made by the way back; diffusers' own conversion has to understand them."""
    single = importlib.import_module("diffusers.loaders.single_file_utils")
    expected = dict(autoencoder.state_dict())
    torch.save(expected, tmp_path / "new.pth")
    old = migrate(tmp_path / "new.pth", "sd-vae-to-diffusers", "--reverse", levels=2)
    state = torch.load(old, weights_only=True)
    assert state["decoder.mid.attn_1.q.weight"].shape == (16, 16, 1, 1)
    assert "encoder.down.1.block.0.nin_shortcut.weight" in state
    agree(single.convert_ldm_vae_checkpoint(dict(state), dict(autoencoder.config)), expected, equal)
    made = migrate(old, "sd-vae-to-diffusers", levels=2)
    agree(torch.load(made, weights_only=True), expected, equal)
    autoencoder.load_state_dict(torch.load(made, weights_only=True), strict=True)


def test_attention_of_old_autoencoders_is_named_as_diffusers_names_it(
    autoencoder: Any, migrate: Any, equal: Any, tmp_path: Path
) -> None:
    """Its own mending of a state dict as it loads one is the oracle."""
    expected = dict(autoencoder.state_dict())
    names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    old = dict(expected)
    for new_name, old_name in names.items():
        old = {key.replace(new_name, old_name): value for key, value in old.items()}
    torch.save(old, tmp_path / "old.pth")
    made = migrate(tmp_path / "old.pth", "diffusers-vae-attention")
    mended = dict(old)
    autoencoder._fix_state_dict_keys_on_load(mended)
    agree(torch.load(made, weights_only=True), mended, equal)
    autoencoder.load_state_dict(torch.load(made, weights_only=True), strict=True)
    assert equal(torch.load(migrate(made, "diffusers-vae-attention", "--reverse")), old)


@pytest.fixture
def unet(framework: Any) -> Any:
    """Stable Diffusion's levels, layers and attention, of few channels."""
    framework("diffusers")
    kind = importlib.import_module("diffusers.models.unets.unet_2d_condition").UNet2DConditionModel
    torch.manual_seed(6)
    return kind(
        block_out_channels=(4, 8, 8, 8),
        layers_per_block=2,
        cross_attention_dim=6,
        attention_head_dim=2,
        norm_num_groups=2,
        sample_size=8,
    )


def test_a_unet_of_stable_diffusion_is_what_diffusers_makes_of_it(
    unet: Any, migrate: Any, equal: Any, tmp_path: Path
) -> None:
    """diffusers looks for the U-Net of a whole Stable Diffusion file."""
    single = importlib.import_module("diffusers.loaders.single_file_utils")
    where = "model.diffusion_model."
    expected = dict(unet.state_dict())
    torch.save({where + key: value for key, value in expected.items()}, tmp_path / "new.pth")
    old = migrate(tmp_path / "new.pth", "sd-unet-to-diffusers", "--reverse")
    state = torch.load(old, weights_only=True)
    assert {f"{where}input_blocks.3.0.op.weight", f"{where}output_blocks.8.2.conv.bias"} <= state.keys()
    assert not [key for key in state if "_blocks.0.resnets" in key or "mid_block" in key]
    agree(single.convert_ldm_unet_checkpoint(dict(state), dict(unet.config)), expected, equal)
    made = torch.load(migrate(old, "sd-unet-to-diffusers"), weights_only=True)
    agree({key.removeprefix(where): value for key, value in made.items()}, expected, equal)


@pytest.fixture
def unet_xl(framework: Any) -> Any:
    """Stable Diffusion XL's levels, layers, depths of attention and embedding of sizes, of few channels."""
    framework("diffusers")
    kind = importlib.import_module("diffusers.models.unets.unet_2d_condition").UNet2DConditionModel
    torch.manual_seed(6)
    return kind(
        block_out_channels=(4, 8, 8),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        transformer_layers_per_block=(1, 2, 3),
        cross_attention_dim=6,
        attention_head_dim=(2, 2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=2,
        projection_class_embeddings_input_dim=17,
        norm_num_groups=2,
        sample_size=8,
    )


def test_a_unet_of_stable_diffusion_xl_is_what_diffusers_makes_of_it(
    unet_xl: Any, migrate: Any, equal: Any, tmp_path: Path
) -> None:
    single = importlib.import_module("diffusers.loaders.single_file_utils")
    where = "model.diffusion_model."
    expected = dict(unet_xl.state_dict())
    torch.save({where + key: value for key, value in expected.items()}, tmp_path / "new.pth")
    old = migrate(tmp_path / "new.pth", "sdxl-unet-to-diffusers", "--reverse")
    state = torch.load(old, weights_only=True)
    assert {f"{where}label_emb.0.2.weight", f"{where}output_blocks.5.2.conv.bias"} <= state.keys()
    assert not [key for key in state if "resnets" in key or "mid_block" in key or "add_embedding" in key]
    agree(single.convert_ldm_unet_checkpoint(dict(state), dict(unet_xl.config)), expected, equal)
    made = torch.load(migrate(old, "sdxl-unet-to-diffusers"), weights_only=True)
    agree({key.removeprefix(where): value for key, value in made.items()}, expected, equal)


PRESETS = ["sd-unet-to-diffusers", "sdxl-unet-to-diffusers"]


@pytest.mark.parametrize(("kind", "own"), list(zip(["unet", "unet_xl"], PRESETS, strict=True)))
def test_neither_unet_is_taken_for_the_other(
    request: Any, migrate: Any, equal: Any, tmp_path: Path, kind: str, own: str
) -> None:
    """Their keys are alike, and a block of the same number is another one: nothing is touched."""
    (other,) = set(PRESETS) - {own}
    new = tmp_path / "new.pth"
    torch.save(dict(request.getfixturevalue(kind).state_dict()), new)
    old = migrate(new, own, "--reverse")
    assert not equal(torch.load(old), torch.load(new))
    assert equal(torch.load(migrate(old, other)), torch.load(old))
    assert equal(torch.load(migrate(new, other, "--reverse")), torch.load(new))
