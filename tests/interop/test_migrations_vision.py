"""Vision models carried from one library to another. What a library converts itself is the oracle where it does."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

SMALL = {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2, "num_classes": 3}


@pytest.fixture
def timm(framework: Any) -> Any:
    """timm's modules by name."""
    return lambda name: framework(f"timm.{name}")


def scrambled(model: Any) -> Any:
    """Every parameter and buffer of numbers at random, so that nothing is equal by chance."""
    with torch.no_grad():
        for number, (name, value) in enumerate(model.state_dict().items()):
            if value.is_floating_point():
                noise = torch.rand(value.shape, generator=torch.Generator().manual_seed(number))
                value.copy_(value + 0.2 * noise if "running_var" in name else value + 0.2 * (noise - 0.5))
    return model


def images(number: int, size: int = 8) -> Any:
    return torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(number))


def logits_of(model: Any, number: int) -> Any:
    found = model(images(number))
    return found if isinstance(found, torch.Tensor) else found.logits


def loss(model: Any, number: int) -> Any:
    return nn.functional.cross_entropy(logits_of(model, number), torch.tensor([0, 1, 2, 0]))


def adamw(model: Any) -> Any:
    return torch.optim.AdamW(model.parameters(), lr=1e-2)


# --- timm and transformers -----------------------------------------------------------------------------


@pytest.fixture
def timm_vit(timm: Any) -> Any:
    return scrambled(timm("models.vision_transformer").VisionTransformer(**SMALL))


@pytest.fixture
def hf_vit(framework: Any) -> Any:
    transformers = framework("transformers")
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=8,
        patch_size=4,
        num_labels=3,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return transformers.ViTForImageClassification(config)


@pytest.fixture
def timm_saved(timm_vit: Any, train: Any, tmp_path: Path) -> Path:
    optimizer = adamw(timm_vit)
    train(timm_vit, optimizer, loss, range(3))
    torch.save({"model": timm_vit.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "timm.pth")
    return tmp_path / "timm.pth"


def test_vit_of_timm_computes_the_same_in_transformers(
    timm_vit: Any, hf_vit: Any, timm_saved: Path, migrate: Any
) -> None:
    made = migrate(migrate(timm_saved, "vit-timm-to-hf"), "vit-hf-4-to-5")
    hf_vit.load_state_dict(torch.load(made, weights_only=True)["model"], strict=True)
    hf_vit.eval(), timm_vit.eval()
    torch.testing.assert_close(logits_of(hf_vit, 9), logits_of(timm_vit, 9), rtol=1e-4, atol=1e-5)


def test_vit_of_timm_trains_on_in_transformers(
    timm_vit: Any, hf_vit: Any, timm_saved: Path, migrate: Any, train: Any, tmp_path: Path
) -> None:
    torch.save(hf_vit.state_dict(), tmp_path / "target.pth")
    made = migrate(timm_saved, "vit-timm-to-hf")
    made = migrate(made, "vit-hf-4-to-5", "--to", str(tmp_path / "target.pth"))
    pairs = []
    for model, path in ((timm_vit, timm_saved), (hf_vit, made)):
        saved = torch.load(path, weights_only=True)
        model.load_state_dict(saved["model"], strict=True)
        optimizer = adamw(model)
        optimizer.load_state_dict(saved["optimizer"])
        pairs.append(train(model, optimizer, loss, range(3, 6)))
    assert pairs[1] == pytest.approx(pairs[0], rel=1e-4)


def test_vit_comes_back_to_timm_bit_for_bit(timm_saved: Path, migrate: Any, equal: Any) -> None:
    made = migrate(timm_saved, "vit-timm-to-hf")
    assert equal(torch.load(migrate(made, "vit-timm-to-hf", "--reverse")), torch.load(timm_saved))


def test_the_names_are_those_that_transformers_writes(
    hf_vit: Any, timm_saved: Path, migrate: Any, framework: Any, tmp_path: Path
) -> None:
    """Its files have the names of version 4, and its live models those of version 5."""
    hf_vit.save_pretrained(tmp_path / "saved")
    written = framework("safetensors.torch").load_file(tmp_path / "saved" / "model.safetensors")
    made = torch.load(migrate(timm_saved, "vit-timm-to-hf"))["model"]
    assert {k: v.shape for k, v in made.items()} == {k: v.shape for k, v in written.items()}
    torch.save(written, tmp_path / "written.pth")
    live = torch.load(migrate(tmp_path / "written.pth", "vit-hf-4-to-5"))
    assert live.keys() == hf_vit.state_dict().keys()


# --- what timm converts itself is the oracle -----------------------------------------------------------


def converted(timm: Any, name: str, state: dict[str, Any]) -> dict[str, Any]:
    """timm's own function, on a copy: it takes keys out of what it is given."""
    return dict(getattr(timm("models.vision_transformer"), name)(dict(state), None))


def agree(made: Path, expected: dict[str, Any], equal: Any) -> None:
    """Keys in any order, tensors bit for bit."""
    found = torch.load(made, weights_only=True)
    assert found.keys() == expected.keys()
    assert [key for key in found if not equal(found[key], expected[key])] == []


class ClipBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, 2)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.c_fc, self.mlp.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.ln_2 = nn.LayerNorm(width)


class Clip(nn.Module):
    """The names of openai/CLIP's model.py; nothing is computed with it."""

    def __init__(self, width: int = 8, out: int = 5) -> None:
        super().__init__()
        self.visual = nn.Module()
        self.visual.class_embedding = nn.Parameter(torch.randn(width))
        self.visual.positional_embedding = nn.Parameter(torch.randn(5, width))
        self.visual.proj = nn.Parameter(torch.randn(width, out))
        self.visual.conv1 = nn.Conv2d(3, width, 4, 4, bias=False)
        self.visual.ln_pre, self.visual.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.visual.transformer = self.tower(width)
        self.transformer = self.tower(width)
        self.token_embedding = nn.Embedding(7, width)
        self.positional_embedding = nn.Parameter(torch.randn(6, width))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, out))
        self.logit_scale = nn.Parameter(torch.ones([]))

    def tower(self, width: int) -> Any:
        made = nn.Module()
        made.resblocks = nn.Sequential(*[ClipBlock(width) for _ in range(2)])
        return made


def test_clip_of_openai_is_what_timm_makes_of_it(timm: Any, migrate: Any, equal: Any, tmp_path: Path) -> None:
    model = scrambled(Clip())
    torch.save(model.state_dict(), tmp_path / "clip.pt")
    made = migrate(tmp_path / "clip.pt", "clip-openai-to-timm")
    agree(made, converted(timm, "_convert_openai_clip", model.state_dict()), equal)
    vit = timm("models.vision_transformer").VisionTransformer(**SMALL | {"num_classes": 5}, pre_norm=True)
    vit.load_state_dict(torch.load(made, weights_only=True), strict=True)


def dino_state(registers: int = 0) -> dict[str, Any]:
    shapes = {
        "cls_token": (1, 1, 8),
        "pos_embed": (1, 5, 8),
        "mask_token": (1, 8),
        "patch_embed.proj.weight": (8, 3, 4, 4),
        "blocks.0.norm1.weight": (8,),
        "blocks.0.ls1.gamma": (8,),
        "blocks.0.mlp.w12.weight": (24, 8),
        "blocks.0.mlp.w12.bias": (24,),
        "blocks.0.mlp.w3.weight": (8, 12),
        "norm.weight": (8,),
    }
    if registers:
        shapes["register_tokens"] = (1, registers, 8)
    return {name: torch.randn(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(("preset", "registers"), [("dinov2-to-timm", 0), ("dinov2-reg-to-timm", 4)])
def test_dinov2_is_what_timm_makes_of_it(
    timm: Any, migrate: Any, equal: Any, tmp_path: Path, preset: str, registers: int
) -> None:
    state = dino_state(registers)
    torch.save(state, tmp_path / "dino.pth")
    agree(migrate(tmp_path / "dino.pth", preset), converted(timm, "_convert_dinov2", state), equal)


def test_beit3_is_what_timm_makes_of_it(timm: Any, migrate: Any, equal: Any, tmp_path: Path) -> None:
    layer = "beit3.encoder.layers.0"
    shapes: dict[str, tuple[int, ...]] = {
        "beit3.text_embed.weight": (7, 8),
        "beit3.vision_embed.mask_token": (1, 1, 8),
        "beit3.vision_embed.cls_token": (1, 1, 8),
        "beit3.vision_embed.proj.weight": (8, 3, 4, 4),
        "beit3.vision_embed.proj.bias": (8,),
        "beit3.encoder.embed_positions.A.weight": (7, 8),
        "beit3.encoder.embed_positions.B.weight": (9, 8),
    }
    for branch in "AB":
        for name, rows in [("q_proj", 8), ("k_proj", 8), ("v_proj", 8), ("out_proj", 8)]:
            shapes[f"{layer}.self_attn.{name}.{branch}.weight"] = (rows, 8)
            shapes[f"{layer}.self_attn.{name}.{branch}.bias"] = (rows,)
        for name in ("self_attn.inner_attn_ln", "self_attn_layer_norm", "final_layer_norm"):
            shapes[f"{layer}.{name}.{branch}.weight"] = (8,)
        shapes[f"{layer}.ffn.{branch}.fc1.weight"] = (32, 8)
        shapes[f"{layer}.ffn.{branch}.fc2.weight"] = (8, 32)
        shapes[f"{layer}.ffn.{branch}.ffn_layernorm.weight"] = (32,)
    state = {name: torch.randn(shape) for name, shape in shapes.items()}
    torch.save(state, tmp_path / "beit3.pth")
    agree(migrate(tmp_path / "beit3.pth", "beit3-to-timm"), converted(timm, "_convert_beit3", state), equal)


def test_aimv2_is_what_timm_makes_of_it(timm: Any, migrate: Any, equal: Any, tmp_path: Path) -> None:
    names = [
        "preprocessor.patchifier.proj.weight",
        "preprocessor.patchifier.norm.weight",
        "preprocessor.pos_embed",
        "trunk.blocks.0.attn.qkv.weight",
        "trunk.blocks.0.norm_1.weight",
        "trunk.blocks.0.norm_2.weight",
        "trunk.blocks.0.mlp.fc1.weight",
        "trunk.blocks.0.mlp.fc2.weight",
        "trunk.blocks.0.mlp.fc3.weight",
        "trunk.post_trunk_norm.weight",
    ]
    state = {name: torch.randn(3, 2) for name in names}
    torch.save(state, tmp_path / "aim.pth")
    made = migrate(tmp_path / "aim.pth", "aimv2-to-timm")
    agree(made, converted(timm, "_convert_aimv2", state), equal)
    assert equal(torch.load(migrate(made, "aimv2-to-timm", "--reverse")), state)


# --- at another resolution -----------------------------------------------------------------------------


def test_positions_are_resampled_as_timm_resamples_them(timm: Any, migrate: Any, tmp_path: Path) -> None:
    """Up in one direction and down in the other, two register tokens beside the class token's."""
    positions = torch.randn(1, 3 + 16, 8)
    torch.save({"pos_embed": positions, "cls_token": torch.randn(1, 1, 8)}, tmp_path / "vit.pth")
    made = torch.load(migrate(tmp_path / "vit.pth", "vit-resize-positions", rows=7, columns=3, prefix=3))
    expected = timm("layers").resample_abs_pos_embed(positions, (7, 3), num_prefix_tokens=3)
    torch.testing.assert_close(made["pos_embed"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("old", "new"), [((4, 4), (8, 6)), ((8, 8), (4, 5)), ((4, 6), (3, 9))])
def test_patches_are_resized_as_timm_resizes_them(
    timm: Any, migrate: Any, tmp_path: Path, old: tuple[int, int], new: tuple[int, int]
) -> None:
    """Larger, smaller, and one of each."""
    kernels = torch.randn(8, 3, *old)
    torch.save({"patch_embed.proj.weight": kernels, "patch_embed.proj.bias": torch.ones(8)}, tmp_path / "vit.pth")
    made = torch.load(migrate(tmp_path / "vit.pth", "vit-resize-patches", height=new[0], width=new[1]))
    expected = timm("layers").resample_patch_embed(kernels, list(new))
    torch.testing.assert_close(made["patch_embed.proj.weight"], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(made["patch_embed.proj.bias"], torch.ones(8))


def test_larger_patches_see_in_enlarged_images_what_smaller_ones_saw(
    timm: Any, timm_vit: Any, migrate: Any, tmp_path: Path
) -> None:
    torch.save(timm_vit.state_dict(), tmp_path / "vit.pth")
    made = migrate(tmp_path / "vit.pth", "vit-resize-patches", height=8, width=8)
    large = timm("models.vision_transformer").VisionTransformer(**SMALL | {"img_size": 16, "patch_size": 8})
    large.load_state_dict(torch.load(made, weights_only=True), strict=True)
    small, patch = images(5, 8), functools.partial(nn.functional.interpolate, size=(8, 8), mode="bicubic")
    # Each patch is enlarged by itself: a patch's pixels are what its kernel sees.
    apart = nn.functional.unfold(small, 4, stride=4).transpose(1, 2).reshape(-1, 3, 4, 4)
    grown = patch(apart, antialias=True).reshape(4, 4, -1).transpose(1, 2)
    enlarged = nn.functional.fold(grown, (16, 16), 8, stride=8)
    with torch.no_grad():
        torch.testing.assert_close(large.eval()(enlarged), timm_vit.eval()(small), rtol=1e-4, atol=1e-5)
