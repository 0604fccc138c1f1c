"""Training as frameworks do it: a loader that is one batch ahead, two batches to a step, arguments by keyword.

The epoch's order is drawn from the global generator. The second argument breaks the resume.
"""

import itertools
import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

out, mode = Path(sys.argv[1]), sys.argv[2]
torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))

    def forward(self, *, x):
        return self.body(x)


def ahead(loader):
    """One batch is fetched before the one before it is given, as accelerate does."""
    iterator = iter(loader)
    batch = next(iterator)
    for following in iterator:
        yield batch
        batch = following
    yield batch


model, criterion = Net(), nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 1.0]))
optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
inputs = torch.randn(128, 8, generator=torch.Generator().manual_seed(1))
data = TensorDataset(inputs, inputs.sum(1).sign() + 1)
loader = DataLoader(data, batch_size=4, shuffle=True)  # 16 steps to an epoch
start, path = 0, out / "last.pt"
if path.exists():
    saved = torch.load(path)
    model.load_state_dict(saved["model"])
    if "no-optimizer" not in mode:
        optimizer.load_state_dict(saved["optimizer"])
    start = saved["step"]
    if "no-order" in mode:
        torch.manual_seed(start)
    else:
        torch.set_rng_state(saved["order"])
order, batches = torch.get_rng_state(), ahead(loader)
first = next(batches)
for _ in range(2 * start + 2 * ("shifted" in mode and start > 0)):
    first = next(batches)
if path.exists() and "no-order" not in mode:
    torch.set_rng_state(saved["rng"])
batches = itertools.chain([first], batches)
for step in range(start, 12):
    for x, y in itertools.islice(batches, 2):
        loss = criterion(model(x=x), y.long()) / 2
        loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if (step + 1) % 4 == 0:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "order": order}
        torch.save({**state, "rng": torch.get_rng_state(), "step": step + 1}, f"{path}.tmp")
        Path(f"{path}.tmp").replace(path)
