"""Two models with an optimizer each, one trained against the other; the second argument breaks the resume.

The state is taken by torch's get_state_dict, which makes a new optimizer step once to have a state to fill.
"""

import os
import sys

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.optim.swa_utils import AveragedModel

out, mode = sys.argv[1], sys.argv[2]
torch.manual_seed(0)
maker = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
judge = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
models = {"maker": maker, "judge": judge}
optimizers = {name: torch.optim.Adam(model.parameters(), 1e-2) for name, model in models.items()}
average = AveragedModel(maker)
path, start = os.path.join(out, "last.pt"), 0
state = {f"{name}.optimizer": get_optimizer_state_dict(models[name], one) for name, one in optimizers.items()}
if os.path.exists(path):
    saved = torch.load(path)
    start = saved["round"]
    for name, model in models.items():
        model.load_state_dict(saved[name])
        if mode != "judge-optimizer-lost" or name == "maker":
            set_optimizer_state_dict(model, optimizers[name], optim_state_dict=saved[f"{name}.optimizer"])
        else:
            optimizers[name].state.clear()
    if mode != "average-lost":
        average.load_state_dict(saved["average"])
    torch.set_rng_state(saved["rng"])
else:
    torch.manual_seed(1)
for turn in range(start, 8):
    real, noise = torch.randn(8, 2) + 2, torch.randn(8, 4)
    made = maker(noise)
    optimizers["judge"].zero_grad()
    (judge(made.detach()).mean() - judge(real).mean()).backward()
    optimizers["judge"].step()
    optimizers["maker"].zero_grad()
    (-judge(made).mean()).backward()
    optimizers["maker"].step()
    average.update_parameters(maker)
    if turn % 2:
        state = {f"{name}.optimizer": get_optimizer_state_dict(models[name], one) for name, one in optimizers.items()}
        state |= {name: model.state_dict() for name, model in models.items()}
        torch.save({**state, "average": average.state_dict(), "rng": torch.get_rng_state(), "round": turn + 1}, path)
