"""What a rule takes away that its inverse cannot give back, in words."""

from __future__ import annotations

from ckpttool.migration.rule_nouns import Rule

_LOSSES = {
    "drop": "its content is not kept",
    "cast": "numbers are rounded to the other element type",
    "scale": "products are rounded",
    "slice": "rows outside of the slice are not kept",
    "sum": "what was added up cannot be told apart",
    "fold": "what was folded cannot be told apart",
    "unfold": "quotients are rounded",
    "interpolate": "pixels are resampled",
    "resize_patches": "kernels are fitted to other pixels",
    "resize_positions": "positions are resampled",
}


def loss_of(rule: Rule) -> str:
    """What cannot come back; empty where nothing is lost. A slice under its own name takes nothing."""
    if rule.kind == "slice" and rule.targets:
        return ""
    return _LOSSES.get(rule.kind, "")
