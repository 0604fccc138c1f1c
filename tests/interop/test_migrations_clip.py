"""CLIP of open_clip, and the text towers that latent diffusion has of it, carried to transformers."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

PRESET = "clip-openai-to-hf"
SIGLIP = Path(__file__).parents[1] / "migration" / "rules" / "siglip-bias.yaml"


@pytest.fixture
def clip(framework: Any) -> Any:
    model = framework("open_clip.model")
    torch.manual_seed(3)
    found = model.CLIP(
        6,
        model.CLIPVisionCfg(layers=2, width=8, head_width=4, patch_size=4, image_size=8),
        model.CLIPTextCfg(context_length=7, vocab_size=20, width=12, heads=3, layers=2),
    )
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return found.eval()


@pytest.fixture
def hf_clip(framework: Any) -> Any:
    transformers = framework("transformers")
    shared = {"num_hidden_layers": 2, "hidden_act": "gelu"}
    config = transformers.CLIPConfig(
        text_config={
            **shared, "hidden_size": 12, "intermediate_size": 48, "num_attention_heads": 3, "vocab_size": 20,
            "max_position_embeddings": 7, "eos_token_id": 19, "bos_token_id": 0, "pad_token_id": 1,
        },
        vision_config={
            **shared, "hidden_size": 8, "intermediate_size": 32, "num_attention_heads": 2, "image_size": 8,
            "patch_size": 4,
        },
        projection_dim=6,
    )  # fmt: skip
    return transformers.CLIPModel(config).eval()


def test_both_towers_compute_the_same_in_transformers(
    clip: Any, hf_clip: Any, migrate: Any, equal: Any, tmp_path: Path
) -> None:
    torch.save(clip.state_dict(), tmp_path / "clip.pt")
    made = migrate(tmp_path / "clip.pt", PRESET)
    hf_clip.load_state_dict(torch.load(made, weights_only=True), strict=True)
    ids = torch.tensor([[0, 5, 7, 3, 19, 1, 1], [0, 2, 19, 1, 1, 1, 1]])
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        found = hf_clip(input_ids=ids, pixel_values=images)
        text, image = clip.encode_text(ids, normalize=True), clip.encode_image(images, normalize=True)
    torch.testing.assert_close(found.text_embeds, text, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.image_embeds, image, rtol=1e-4, atol=1e-5)
    back = torch.load(migrate(made, PRESET, "--reverse"), weights_only=True)
    assert back.keys() == clip.state_dict().keys()
    assert all(equal(back[key], value) for key, value in clip.state_dict().items())


def test_the_optimizer_moves_with_the_towers(clip: Any, hf_clip: Any, migrate: Any, tmp_path: Path) -> None:
    """Fused projections and transposed ones: a step of the moved optimizer moves the moved weights alike."""
    optimizer = torch.optim.AdamW(clip.parameters(), lr=1e-2)
    ids, images = torch.tensor([[0, 5, 19, 1, 1, 1, 1]]), torch.randn(1, 3, 8, 8)

    def step(of: Any, towers: Any) -> None:
        of.zero_grad()
        sum(tower.square().sum() for tower in towers).backward()
        of.step()

    step(optimizer, (clip.encode_text(ids), clip.encode_image(images)))
    torch.save({"model": clip.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "clip.pt")
    torch.save(hf_clip.state_dict(), tmp_path / "target.pt")
    saved = torch.load(migrate(tmp_path / "clip.pt", PRESET, "--to", str(tmp_path / "target.pt")))
    hf_clip.load_state_dict(saved["model"], strict=True)
    resumed = torch.optim.AdamW(hf_clip.parameters(), lr=1e-2)
    resumed.load_state_dict(saved["optimizer"])
    step(optimizer, (clip.encode_text(ids), clip.encode_image(images)))
    text = hf_clip.text_projection(hf_clip.text_model(input_ids=ids).pooler_output)
    image = hf_clip.visual_projection(hf_clip.vision_model(pixel_values=images).pooler_output)
    step(resumed, (text, image))
    torch.save(clip.state_dict(), tmp_path / "after.pt")
    expected = torch.load(migrate(tmp_path / "after.pt", PRESET))
    for key, value in hf_clip.state_dict().items():
        # A softmax does not feel a key's bias: its gradient is rounding, of which Adam makes whole steps.
        if not key.endswith("k_proj.bias"):
            torch.testing.assert_close(value, expected[key], rtol=1e-3, atol=1e-5, msg=key)


def test_the_text_tower_of_stable_diffusion_2_is_what_diffusers_makes_of_it(
    clip: Any, framework: Any, migrate: Any, equal: Any, tmp_path: Path
) -> None:
    """Below ``cond_stage_model.model``, where it stays."""
    framework("diffusers")
    convert = importlib.import_module("diffusers.loaders.single_file_utils").convert_open_clip_checkpoint
    where = "cond_stage_model.model."
    text = {k: v for k, v in clip.state_dict().items() if not k.startswith(("visual.", "logit_scale"))}
    state = {where + key: value for key, value in text.items()}
    torch.save(state, tmp_path / "sd2.pt")
    made = torch.load(migrate(tmp_path / "sd2.pt", PRESET), weights_only=True)
    # diffusers takes the width of a tower from its projection's rows.
    square = {**state, f"{where}text_projection": torch.randn(12, 12)}
    expected = convert(SimpleNamespace(config=SimpleNamespace(hidden_size=12)), square)
    found = {key.removeprefix(where): value for key, value in made.items()}
    # The first version had no use for the projection, so diffusers leaves it out.
    assert torch.equal(found.pop("text_projection.weight"), clip.text_projection.T)
    assert found.keys() == expected.keys()
    assert [key for key in found if not equal(found[key], expected[key])] == []


@pytest.fixture
def parts(framework: Any) -> Any:
    """open_clip's own two forms of one model: its text tower at the top, or below ``text``."""
    model = framework("open_clip.model")

    def make(kind: str, **more: Any) -> Any:
        vision = model.CLIPVisionCfg(layers=1, width=8, head_width=4, patch_size=4, image_size=8)
        text = model.CLIPTextCfg(context_length=7, vocab_size=20, width=12, heads=3, layers=2)
        return getattr(model, kind)(6, vision, text, **more).eval()

    return make


def test_a_text_tower_at_the_top_goes_where_open_clip_puts_it(
    parts: Any, framework: Any, migrate: Any, equal: Any, tmp_path: Path
) -> None:
    flat, custom = parts("CLIP"), parts("CustomTextCLIP")
    old = dict(flat.state_dict()) | {"transformer.position_ids": torch.arange(7)}
    torch.save(old, tmp_path / "flat.pt")
    made = migrate(tmp_path / "flat.pt", "clip-flat-to-custom-text")
    state = torch.load(made, weights_only=True)
    expected = framework("open_clip.model").convert_to_custom_text_state_dict(dict(flat.state_dict()))
    assert equal(dict(sorted(state.items())), dict(sorted(expected.items())))
    custom.load_state_dict(state, strict=True)
    ids = torch.tensor([[0, 5, 7, 3, 19, 1, 1]])
    assert torch.equal(custom.encode_text(ids), flat.encode_text(ids))
    back = torch.load(migrate(made, "clip-flat-to-custom-text", "--reverse"), weights_only=True)
    assert equal(back, dict(flat.state_dict()))


def test_a_scale_of_logits_gets_a_bias_beside_it(parts: Any, migrate: Any, tmp_path: Path) -> None:
    """open_clip's loader does the same for a model that has a bias and a scale of one dimension."""
    old, new = (parts("CustomTextCLIP"), parts("CustomTextCLIP", init_logit_bias=-10.0, nonscalar_logit_scale=True))
    torch.save(old.state_dict(), tmp_path / "old.pt")
    made = torch.load(migrate(tmp_path / "old.pt", str(SIGLIP)), weights_only=True)
    new.load_state_dict(made, strict=True)
    assert (new.logit_scale.item(), new.logit_bias.tolist()) == (old.logit_scale.item(), [0.0])
