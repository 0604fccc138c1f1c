"""Data-parallel training of two processes, each with its own dropout: a part of the state for each rank."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

out, mode = sys.argv[1], sys.argv[2]
dist.init_process_group("gloo")
rank = dist.get_rank()
torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1))
torch.manual_seed(7 if mode == "other-dropout" and rank else 1 + rank)
optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
inputs = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
targets = inputs.sum(1, keepdim=True)
start, path = 0, Path(out) / "last.pt"
if path.exists():
    saved = torch.load(path)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    start = saved["step"]
    torch.set_rng_state(saved["rng"][0 if mode == "first-rng" else rank])
parallel = DistributedDataParallel(model)
for step in range(start, 10):
    place = (2 * step + rank + (3 if mode == "shifted" and start else 0)) % 8 * 8
    loss = (parallel(inputs[place : place + 8]) - targets[place : place + 8]).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if (step + 1) % 3 == 0:
        states = [torch.empty_like(torch.get_rng_state()) for _ in range(2)]
        dist.all_gather(states, torch.get_rng_state())
        if rank == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": states, "step": step + 1}
            torch.save(state, f"{path}.tmp")
            Path(f"{path}.tmp").replace(path)
        dist.barrier()
dist.destroy_process_group()
