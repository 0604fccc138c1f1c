"""accelerate's documented resume: `save_state` into `step_N`, `load_state`, and as many batches skipped."""

import argparse
import os

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--output_dir")
parser.add_argument("--checkpointing_steps", type=int, default=3)
args = parser.parse_args()

accelerator = Accelerator(cpu=True)
set_seed(42)
rows = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
loader = DataLoader(TensorDataset(rows, rows.sum(1, keepdim=True)), batch_size=8, shuffle=True)
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, 20)
model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)

overall_step, starting_epoch, resume_step = 0, 0, None
saved = sorted((f.name for f in os.scandir(args.output_dir) if f.name.startswith("step_")), key=lambda n: int(n[5:]))
if saved:
    accelerator.load_state(os.path.join(args.output_dir, saved[-1]))
    resume_step = int(saved[-1].replace("step_", ""))
    starting_epoch = resume_step // len(loader)
    overall_step = resume_step
    resume_step -= starting_epoch * len(loader)

for epoch in range(starting_epoch, 4):
    model.train()
    active = loader
    if saved and epoch == starting_epoch and resume_step is not None:
        active = accelerator.skip_first_batches(loader, resume_step)
    for inputs, labels in active:
        loss = nn.functional.mse_loss(model(inputs), labels)
        accelerator.backward(loss)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        overall_step += 1
        if overall_step % args.checkpointing_steps == 0:
            accelerator.save_state(os.path.join(args.output_dir, f"step_{overall_step}"))
