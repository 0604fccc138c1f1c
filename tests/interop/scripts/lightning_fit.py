"""Lightning's documented resume: `ModelCheckpoint(save_last=True)` and `Trainer.fit(ckpt_path="last")`."""

import sys

import lightning as L  # noqa: N812
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

out = sys.argv[1]


class Net(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1))

    def training_step(self, batch, _):
        x, y = batch
        return nn.functional.mse_loss(self.body(x), y)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), 1e-2)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


L.seed_everything(3)
rows = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
loader = DataLoader(TensorDataset(rows, rows.sum(1, keepdim=True)), batch_size=8, shuffle=True)
trainer = L.Trainer(
    default_root_dir=out, accelerator="cpu", max_epochs=4, logger=False, enable_progress_bar=False,
    enable_model_summary=False, callbacks=[ModelCheckpoint(out, save_last=True, every_n_epochs=1)],
)  # fmt: skip
trainer.fit(Net(), loader, ckpt_path="last")
