"""A plain training script, as people write them: it knows nothing of the check. Its second argument breaks it."""

import os
import sys

import torch
from torch import nn

out, mode = sys.argv[1], sys.argv[2]
torch.manual_seed(int.from_bytes(os.urandom(3), "big") if mode == "unseeded" else 0)
layers = [
    nn.Linear(8, 16),
    nn.ReLU(),
    nn.Dropout(0.2),
    nn.Linear(16, 16),
    nn.ReLU(),
    nn.Linear(16, 16),
    nn.Linear(16, 1),
]
model = nn.Sequential(*layers)
optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
schedule = torch.optim.lr_scheduler.StepLR(optimizer, 10, 0.5)
inputs = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
targets = inputs.sum(1, keepdim=True)
start, path = 0, os.path.join(out, "last.pt")
if os.path.exists(path):
    if mode == "resume-fails":
        sys.exit("the state does not fit")
    saved = torch.load(path)
    model.load_state_dict(saved["model"])
    start = saved["step"]
    if mode != "no-optimizer":
        optimizer.load_state_dict(saved["optimizer"])
    schedule.load_state_dict(saved["schedule"])
    if mode == "exchanged":
        states = optimizer.state
        one, two = layers[3].weight, layers[5].weight
        states[one], states[two] = states[two], states[one]
    if mode != "no-rng":
        torch.set_rng_state(saved["rng"])
for step in range(start, 16):
    place = (step + (1 if mode == "shifted" and start else 0)) % 8 * 8
    loss = (model(inputs[place : place + 8]) - targets[place : place + 8]).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    if (step + 1) % 4 == 0 and mode != "never-saves":
        if mode == "save-moves":
            with torch.no_grad():
                layers[0].weight.copy_(layers[0].weight.bfloat16())
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        torch.save({**state, "rng": torch.get_rng_state(), "step": step + 1}, path + ".tmp")
        os.replace(path + ".tmp", path)
