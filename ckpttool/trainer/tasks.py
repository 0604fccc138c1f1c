"""Three tasks on real data that lies beside this file: pictures, text, a table. Models and what they are judged by."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name
from torch.utils.checkpoint import checkpoint

from ckpttool import digest_of
from ckpttool.trainer.config import Config

CONTEXT = 64  # characters that the language model sees
HELD_OUT = 5  # one sample of so many is kept for evaluation


@dataclass(frozen=True, slots=True)
class Examples:
    """Inputs and targets of one split, whole in memory."""

    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True, slots=True)
class TaskParts:
    """All that the loop needs of a task. ``metric`` of logits and targets, summed over samples; ``better`` its sign."""

    train: Examples
    held_out: Examples
    model: Callable[[Config], nn.Module]
    augment: Callable[[Tensor, torch.Generator], Tensor] | None
    metric: Callable[[Tensor, Tensor], Tensor]
    metric_name: str
    lower: bool

    def fingerprint(self) -> str:
        """A digest of all samples: a resume on other data is another run."""
        return digest_of([self.train.inputs, self.train.targets, self.held_out.inputs, self.held_out.targets])


def load_task(config: Config) -> TaskParts:
    """The data, split the same way every time, and the model's factory."""
    return {"digits": _digits, "gpt": _gpt, "tabular": _tabular}[config.task]()


# --- pictures: batch norm, dropout, augmentation ------------------------------------------------------------


class DigitsNet(nn.Module):
    """Two convolutions, batch norm and dropout on 8 × 8 pixels: 10 thousand parameters."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.stem = _conv(1, 16)
        self.body = _conv(16, 32)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(32 * 16, 10)
        self.recompute = config.activation_checkpointing

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = checkpoint(self.body, x, use_reentrant=False) if self.recompute and self.training else self.body(x)
        return self.head(self.dropout(F.max_pool2d(x, 2).flatten(1)))


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def _digits() -> TaskParts:
    table = _table("digits.csv.gz").float()
    pixels, labels = table[:, :64].reshape(-1, 1, 8, 8) / 16, table[:, 64].long()
    return TaskParts(*_split(pixels, labels), DigitsNet, _shift, _hits, "accuracy", lower=False)


def _shift(picture: Tensor, generator: torch.Generator) -> Tensor:
    """Move a picture by at most a pixel, and add a little noise."""
    dx, dy = torch.randint(-1, 2, (2,), generator=generator).tolist()
    noise = 0.05 * torch.randn(picture.shape, generator=generator)
    return torch.roll(picture, (dy, dx), (-2, -1)) + noise


# --- text: tied embeddings, causal attention -----------------------------------------------------------------


class CharGPT(nn.Module):
    """A small GPT over characters; its output layer is its embedding: 110 thousand parameters."""

    def __init__(self, vocabulary: int, config: Config, width: int = 64, depth: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(CONTEXT, width)
        settings: dict[str, Any] = {"activation": "gelu", "batch_first": True, "norm_first": True}
        layers = (nn.TransformerEncoderLayer(width, heads, 4 * width, config.dropout, **settings) for _ in range(depth))
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.wte.weight  # tied
        self.recompute = config.activation_checkpointing
        for embedding in (self.wte, self.wpe):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1], ids.device)
        for layer in self.layers:
            act = partial(checkpoint, layer, use_reentrant=False) if self.recompute and self.training else layer
            x = act(x, mask, is_causal=True)
        return self.lm_head(self.norm(x))


def _gpt() -> TaskParts:
    text = gzip.decompress(_bytes("shakespeare.txt.gz")).decode()
    places = {character: i for i, character in enumerate(sorted(set(text)))}
    ids = torch.tensor([places[character] for character in text])
    windows = ids[: (len(ids) - 1) // CONTEXT * CONTEXT].view(-1, CONTEXT)
    following = ids[1 : windows.numel() + 1].view(-1, CONTEXT)
    return TaskParts(
        *_split(windows, following), partial(CharGPT, len(places)), None, _losses, "loss per character", lower=True
    )


# --- a table: plateau schedule, early stopping --------------------------------------------------------------


class TabularNet(nn.Module):
    """Three linear layers on thirty measurements."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(30, 64), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2)
        )
        self.recompute = config.activation_checkpointing

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.net, x, use_reentrant=False) if self.recompute and self.training else self.net(x)


def _tabular() -> TaskParts:
    table = _table("breast_cancer.csv.gz", header=1)
    features = (table[:, :30] - table[:, :30].mean(0)) / table[:, :30].std(0)
    parts = _split(features.float(), table[:, 30].long())
    return TaskParts(*parts, TabularNet, None, _losses, "loss", lower=True)


# --- shared -------------------------------------------------------------------------------------------------


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy, over characters too."""
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten())


def _hits(logits: Tensor, targets: Tensor) -> Tensor:
    return (logits.argmax(-1) == targets).sum()


def _losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Each sample's mean cross-entropy, summed."""
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="sum") / targets[0].numel()


def _split(inputs: Tensor, targets: Tensor) -> tuple[Examples, Examples]:
    """Every fifth sample is held out."""
    kept = torch.arange(len(targets)) % HELD_OUT == 0
    return Examples(inputs[~kept], targets[~kept]), Examples(inputs[kept], targets[kept])


def _table(name: str, *, header: int = 0) -> Tensor:
    """The numbers in a file of this package, below so many lines."""
    return torch.from_numpy(np.loadtxt(io.BytesIO(gzip.decompress(_bytes(name))), delimiter=",", skiprows=header))


def _bytes(name: str) -> bytes:
    return (files("ckpttool.trainer") / "data" / name).read_bytes()
