"""A trainer in the manner of PyTorch's examples: a file after each epoch, `--resume PATH`, nothing of generators."""

import argparse
import os
import shutil

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--out", default=".")
parser.add_argument("--epochs", default=4, type=int)
parser.add_argument("--resume", default="")
parser.add_argument("--seed", default=1, type=int)
args = parser.parse_args()


def main() -> None:
    torch.manual_seed(args.seed)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.25), nn.Linear(144, 10)
    )
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)
    start_epoch, best_acc1 = 0, 0.0
    if args.resume:
        checkpoint = torch.load(args.resume, map_location="cpu")
        start_epoch, best_acc1 = checkpoint["epoch"], checkpoint["best_acc1"]
        model.load_state_dict(checkpoint["state_dict"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        scheduler.load_state_dict(checkpoint["scheduler"])
    digits = torch.Generator().manual_seed(0)
    images, labels = torch.randn(32, 1, 8, 8, generator=digits), torch.randint(0, 10, (32,), generator=digits)
    train_loader = DataLoader(TensorDataset(images, labels), batch_size=8, shuffle=True)
    val_loader = DataLoader(TensorDataset(images, labels), batch_size=16)
    for epoch in range(start_epoch, args.epochs):
        train(train_loader, model, criterion, optimizer)
        acc1 = validate(val_loader, model)
        scheduler.step()
        is_best, best_acc1 = acc1 > best_acc1, max(acc1, best_acc1)
        state = {"epoch": epoch + 1, "state_dict": model.state_dict(), "best_acc1": best_acc1}
        save_checkpoint({**state, "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}, is_best)


def train(loader, model, criterion, optimizer) -> None:
    model.train()
    for images, target in loader:
        loss = criterion(model(images), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def validate(loader, model) -> float:
    model.eval()
    return sum((model(x).argmax(1) == y).sum().item() for x, y in loader) / 32


def save_checkpoint(state, is_best: bool) -> None:
    filename = os.path.join(args.out, "checkpoint.pth.tar")
    torch.save(state, filename)
    if is_best:
        shutil.copyfile(filename, os.path.join(args.out, "model_best.pth.tar"))


if __name__ == "__main__":
    main()
