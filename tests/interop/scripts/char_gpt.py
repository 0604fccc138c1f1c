"""A single-file GPT trainer in the manner of nanoGPT: random windows of one long text, `--init_from=resume`."""

import math
import os
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

config = {"out_dir": "out", "init_from": "scratch", "max_iters": 16, "eval_interval": 4, "dropout": 0.1}
for argument in sys.argv[1:]:
    key, _, value = argument.removeprefix("--").partition("=")
    config[key] = type(config[key])(value)
out_dir, block_size, batch_size = config["out_dir"], 16, 4
os.makedirs(out_dir, exist_ok=True)
torch.manual_seed(1337)
text = np.random.default_rng(0).integers(0, 32, 4096).astype(np.uint16)


class GPT(nn.Module):
    def __init__(self, vocab: int, width: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocab, width), nn.Embedding(block_size, width)
        self.drop = nn.Dropout(config["dropout"])
        self.block = nn.TransformerEncoderLayer(width, 2, 4 * width, config["dropout"], batch_first=True)
        self.lm_head = nn.Linear(width, vocab, bias=False)
        self.wte.weight = self.lm_head.weight

    def forward(self, idx, targets):
        x = self.drop(self.wte(idx) + self.wpe(torch.arange(idx.shape[1])))
        mask = nn.Transformer.generate_square_subsequent_mask(idx.shape[1])
        logits = self.lm_head(self.block(x, mask, is_causal=True))
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def get_batch():
    ix = torch.randint(len(text) - block_size, (batch_size,))
    rows = [torch.from_numpy(text[i : i + block_size + 1].astype(np.int64)) for i in ix]
    return torch.stack([r[:-1] for r in rows]), torch.stack([r[1:] for r in rows])


@torch.no_grad()
def estimate_loss():
    model.eval()
    losses = [model(*get_batch())[1].item() for _ in range(2)]
    model.train()
    return sum(losses) / len(losses)


iter_num, best_val_loss = 0, 1e9
model = GPT(32, 16)
if config["init_from"] == "resume":
    checkpoint = torch.load(os.path.join(out_dir, "ckpt.pt"))
    model.load_state_dict(checkpoint["model"])
    iter_num, best_val_loss = checkpoint["iter_num"], checkpoint["best_val_loss"]
scaler = torch.amp.GradScaler("cpu", enabled=False)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
if config["init_from"] == "resume":
    optimizer.load_state_dict(checkpoint["optimizer"])

X, Y = get_batch()
while True:
    lr = 1e-3 * (iter_num + 1) / 5 if iter_num < 4 else 1e-4 + 4.5e-4 * (1 + math.cos(math.pi * iter_num / 40))
    for group in optimizer.param_groups:
        group["lr"] = lr
    if iter_num % config["eval_interval"] == 0:
        best_val_loss = min(best_val_loss, estimate_loss())
        if iter_num > 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(
                {**state, "iter_num": iter_num, "best_val_loss": best_val_loss}, os.path.join(out_dir, "ckpt.pt")
            )
    for _ in range(2):
        logits, loss = model(X, Y)
        loss = loss / 2
        X, Y = get_batch()  # while the accelerator is busy
        scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    iter_num += 1
    if iter_num > config["max_iters"]:
        break
