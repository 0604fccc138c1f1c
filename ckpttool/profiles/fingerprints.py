"""Which optimizer class wrote a state dict, told by the keys of its groups and states.

Sources: torch 2.13 ``torch/optim/*.py`` (defaults become group keys), transformers ``Adafactor``,
apex, lion-pytorch,
bitsandbytes. Group keys come first: they are there before the first step.
"""

from __future__ import annotations

from collections.abc import Set

from ckpttool.model import Scalar

UNKNOWN = "unknown"

_BY_GROUP: tuple[tuple[str, frozenset[str]], ...] = (
    ("LBFGS", frozenset({"history_size", "max_iter"})),
    ("Muon", frozenset({"ns_coefficients"})),
    ("Adafactor", frozenset({"beta2_decay"})),
    ("Adafactor (transformers)", frozenset({"clip_threshold", "decay_rate"})),
    ("Rprop", frozenset({"etas", "step_sizes"})),
    ("ASGD", frozenset({"lambd", "t0"})),
    ("Adadelta", frozenset({"rho"})),
    ("Adagrad", frozenset({"lr_decay"})),
    ("NAdam", frozenset({"momentum_decay"})),
    ("RMSprop", frozenset({"alpha", "centered"})),
    ("AdamWScheduleFree", frozenset({"betas", "weight_lr_power"})),
    ("SGDScheduleFree", frozenset({"momentum", "weight_lr_power"})),
    ("SGD", frozenset({"momentum", "dampening"})),
)
_BY_STATE: tuple[tuple[str, frozenset[str]], ...] = (
    ("Adamax", frozenset({"exp_inf"})),
    ("bitsandbytes 8-bit", frozenset({"state1", "qmap1"})),
    ("bitsandbytes", frozenset({"state1"})),
)


def kind_of(group: dict[str, Scalar], moments: Set[str]) -> str:
    """The class by one group's keys and the names of its states; ``unknown`` if none fits."""
    keys = group.keys()
    for kind, wanted in _BY_STATE:
        if wanted <= moments:
            return kind
    for kind, wanted in _BY_GROUP:
        if wanted <= keys:
            return kind
    return _adam_family(group, moments) if "betas" in keys else UNKNOWN


def _adam_family(group: dict[str, Scalar], moments: Set[str]) -> str:
    if "amsgrad" in group:
        decoupled = group.get("decoupled_weight_decay")
        # Files from torch before 2.7 lack the flag, and nothing else tells the two apart.
        return "Adam/AdamW" if decoupled is None else "AdamW" if decoupled else "Adam"
    if "bias_correction" in group or "correct_bias" in group:
        return "FusedAdam" if "bias_correction" in group else "AdamW (transformers)"
    if "decoupled_weight_decay" in group:
        return "RAdam"
    if "weight_decay" not in group:
        return "SparseAdam" if "eps" in group else "Lion" if moments == {"exp_avg"} else UNKNOWN
    if moments == {"exp_avg"}:
        return "Lion"
    return "RAdam" if {"exp_avg", "exp_avg_sq"} <= moments else "Adamax/RAdam" if not moments else UNKNOWN


PARAMETER_SHAPED = (
    "exp_avg exp_avg_sq max_exp_avg_sq exp_inf momentum_buffer square_avg grad_avg acc_delta sum prev "
    "step_size ax "
    "variance state1 state2 z master_param fp32_param"
).split()
"""States that torch's and common optimizers keep in the shape of their parameter."""

COMPRESSED = frozenset({"projector", "GG", "Q", "preconditioner", "qmap1", "old_dirs"})
"""With one of these, moments need not have the parameter's shape (GaLore, SOAP, 8-bit, LBFGS)."""
