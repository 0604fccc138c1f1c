"""OpenNMT-py: the step is told by the file's name and the optimizer's own counter."""

from ckpttool.profiles.profile import Next, Profile

PROFILE = Profile(
    framework="OpenNMT-py",
    requires=("model", "generator", "vocab", "opt", "optim"),
    confirms=("vocab",),
    weights=("model", "generator"),
    optimizer=("optim>optimizer",),
    counters=("optim>training_step|optim>_step",),
    config=("opt",),
    never=("rng", "scheduler", "data position"),
    recomputes=("scheduler",),
    next=(Next("optim>training_step|optim>_step", unit="step"),),
)
