"""detectron2's ``plain_train_net.py``, and fvcore's ``PeriodicCheckpointer`` in general."""

from ckpttool.profiles.profile import Next, Profile

PROFILE = Profile(
    framework="detectron2 (fvcore)",
    requires=("model", "optimizer", "scheduler", "iteration"),
    weights=("model",),
    optimizer=("optimizer",),
    scheduler=("scheduler",),
    counters=("iteration",),
    needs=("scheduler",),
    never=("rng", "data position"),
    next=(Next("iteration", 1, "iteration"),),
)
