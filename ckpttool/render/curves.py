"""A training run's log as a picture: its loss, its metric and its learning rate over steps."""

from __future__ import annotations

import csv
import html
import io
from pathlib import Path

from ckpttool.errors import MissingExtra, UsageError

PICTURES = (".html", ".pdf", ".png", ".svg")
PANELS = (("loss", "loss_average"), ("metric", "ema_metric"), ("lr",))
"""The columns of the log that are drawn together."""


def need_plot(picture: Path) -> None:
    """Raise what ``curves`` would, before hours of training rather than after."""
    if picture.suffix not in PICTURES or not picture.absolute().parent.is_dir():
        raise UsageError(f"{picture} – a name in a folder that is there, that ends in {', '.join(PICTURES)}, is needed")
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise MissingExtra("matplotlib", "report") from error
    mpl.use("Agg")


def curves(log: Path, picture: Path, title: str = "") -> None:
    """Draw the log that ``ckpttool train`` writes: a picture, or a page that holds one, by suffix."""
    need_plot(picture)
    from matplotlib import pyplot

    with log.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    figure, axes = pyplot.subplots(len(PANELS), 1, sharex=True, figsize=(8, 8), layout="constrained")
    for axis, names in zip(axes, PANELS, strict=True):
        for name in names:
            if found := [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]:
                axis.plot(*zip(*found, strict=True), label=name)
                axis.legend(loc="best")
    axes[0].set_title(title)
    axes[-1].set_xlabel("step")
    page = picture.suffix == ".html"
    drawn = io.StringIO() if page else picture
    figure.savefig(drawn, format="svg" if page else picture.suffix[1:])
    pyplot.close(figure)
    if isinstance(drawn, io.StringIO):
        head = f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title>"
        picture.write_text(head + drawn.getvalue().partition("?>")[2], encoding="utf-8")
