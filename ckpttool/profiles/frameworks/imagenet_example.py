"""PyTorch's ImageNet example (``examples/imagenet/main.py``); older copies lack the scheduler."""

from ckpttool.profiles.profile import Next, Profile

PROFILE = Profile(
    framework="PyTorch ImageNet example",
    requires=("epoch", "arch", "state_dict", "best_acc1|best_prec1|best_acc"),
    forbids=("version",),
    weights=("state_dict",),
    optimizer=("optimizer",),
    scheduler=("scheduler",),
    counters=("epoch",),
    never=("rng", "data position"),
    next=(Next("epoch"),),
)
