"""What torchvision renamed in its own models. Its own upgrade of the same state dict is the oracle."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

Make = Callable[[], Any]
Loss = Callable[[Any, int], Any]


@pytest.fixture
def vision(framework: Any) -> Any:
    """torchvision's modules by name."""
    return lambda name: framework(f"torchvision.{name}")


def images(number: int, size: int, channels: int = 3) -> Any:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(number))


def sgd(model: Any) -> Any:
    return torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)


def unversioned(model: Any, rename: Callable[[str], str]) -> Any:
    """Its state dict as an older class would have saved it: other names, and no version of any class."""
    state = model.state_dict()
    old = type(state)((rename(key), value) for key, value in state.items())
    old._metadata = type(state)((module, {}) for module in state._metadata)
    return old


@pytest.fixture
def proved(train: Any, migrate: Any, equal: Any, tmp_path: Path) -> Callable[..., None]:
    """Train under the old names, migrate: torchvision's upgrade of it, the same losses, and all the way back."""

    def prove(make: Make, rename: Callable[[str], str], preset: str, loss: Loss, upgrade: Any = None) -> None:
        model = make()
        optimizer = sgd(model)
        train(model, optimizer, loss, range(2))
        saved = tmp_path / "old.pth"
        old = unversioned(model, rename)
        assert old.keys() != model.state_dict().keys()
        torch.save({"model": old, "optimizer": optimizer.state_dict()}, saved)
        path = migrate(saved, preset)
        loaded, fresh, upgraded = torch.load(path, weights_only=True), make(), make()
        fresh.load_state_dict(loaded["model"], strict=True)
        (upgrade or nn.Module.load_state_dict)(upgraded, torch.load(saved)["model"])
        assert equal(dict(fresh.state_dict()), dict(upgraded.state_dict()))
        resumed = sgd(fresh)
        resumed.load_state_dict(loaded["optimizer"])
        assert train(fresh, resumed, loss, range(2, 4)) == train(model, optimizer, loss, range(2, 4))
        assert equal(torch.load(migrate(path, preset, "--reverse")), torch.load(saved))

    return prove


def test_densenet_of_old(vision: Any, proved: Any) -> None:
    densenet = vision("models.densenet")

    def rename(key: str) -> str:
        for name in ("norm", "conv"):
            for digit in "12":
                key = key.replace(f".{name}{digit}.", f".{name}.{digit}.") if "denselayer" in key else key
        return key

    def upgrade(model: Any, state: Any) -> None:
        densenet._load_state_dict(model, SimpleNamespace(get_state_dict=lambda **_: counted(state)), False)

    def counted(state: Any) -> Any:
        """torchvision's pattern dates from before the counts of batches, and leaves those as they are."""
        for key in [key for key in state if key.endswith("num_batches_tracked")]:
            state[key.replace(".norm.1.", ".norm1.").replace(".norm.2.", ".norm2.")] = state.pop(key)
        return state

    def loss(model: Any, number: int) -> Any:
        return model(images(number, 32)).square().mean()

    make = functools.partial(densenet.DenseNet, growth_rate=2, block_config=(2, 1), num_init_features=4, num_classes=3)
    proved(make, rename, "densenet-old", loss, upgrade)


def test_blocks_of_the_vision_transformer(vision: Any, proved: Any) -> None:
    def make() -> Any:
        model = vision("models.vision_transformer").VisionTransformer(8, 4, 2, 2, 8, 16, num_classes=3)
        nn.init.normal_(model.heads.head.weight)
        return model

    def rename(key: str) -> str:
        return key.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2.")

    proved(make, rename, "torchvision-vit-mlp-v2", lambda m, n: m(images(n, 8)).square().mean())


class Heads(nn.Module):
    """torchvision's own parts of detectors, named as its Mask R-CNN and RetinaNet name them."""

    def __init__(self, vision: Any) -> None:
        super().__init__()
        retina = vision("models.detection.retinanet")
        self.backbone, self.rpn, self.roi_heads = nn.Module(), nn.Module(), nn.Module()
        self.backbone.fpn = vision("ops").FeaturePyramidNetwork([3, 3], 4)
        self.rpn.head = vision("models.detection.rpn").RPNHead(4, 2)
        self.roi_heads.mask_head = vision("models.detection.mask_rcnn").MaskRCNNHeads(4, (4, 4), 1)
        self.head = nn.Module()
        self.head.classification_head = retina.RetinaNetClassificationHead(4, 2, 3)
        self.head.regression_head = retina.RetinaNetRegressionHead(4, 2)

    def forward(self, x: Any) -> Any:
        found = list(self.backbone.fpn({"0": x, "1": x[..., ::2, ::2]}).values())
        parts = (*self.rpn.head(found), [self.roi_heads.mask_head(found[0])])
        heads = (self.head.classification_head(found), self.head.regression_head(found))
        return sum(one.square().mean() for part in parts for one in part) + sum(h.square().mean() for h in heads)


def test_heads_of_detectors(vision: Any, proved: Any) -> None:
    def rename(key: str) -> str:
        part, _, kind = key.rpartition(".")
        where, *numbers = part.removesuffix(".0").rsplit(".", 1)
        if "_blocks" in where:
            return f"{where}.{numbers[0]}.{kind}"
        if where.startswith("rpn.head.conv"):
            return f"rpn.head.conv.{kind}"
        if where.endswith("mask_head"):
            return f"{where}.mask_fcn{int(numbers[0]) + 1}.{kind}"
        return f"{where}.{2 * int(numbers[0])}.{kind}" if where.endswith("_head.conv") else key

    def loss(model: Any, number: int) -> Any:
        return model(images(number, 8))

    proved(functools.partial(Heads, vision), rename, "torchvision-fpn-v2", loss)
