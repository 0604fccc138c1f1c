"""transformers' documented resume: `Trainer.train(resume_from_checkpoint=True)` where a checkpoint is there."""

import sys

import torch
from torch import nn
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

out = sys.argv[1]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1))

    def forward(self, x, labels):
        found = self.body(x)
        return {"loss": nn.functional.mse_loss(found, labels), "logits": found}


torch.manual_seed(0)
rows = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
data = [{"x": row, "labels": row.sum().reshape(1)} for row in rows]
arguments = TrainingArguments(
    output_dir=out, num_train_epochs=4, per_device_train_batch_size=8, save_strategy="steps", save_steps=3,
    seed=1, report_to=[], disable_tqdm=True, use_cpu=True, logging_steps=100,
)  # fmt: skip
trainer = Trainer(Net(), arguments, train_dataset=data)
trainer.train(resume_from_checkpoint=get_last_checkpoint(out) is not None)
