"""nanoGPT ``train.py``: six keys; the learning rate is a function of ``iter_num``."""

from ckpttool.profiles.profile import Next, Profile

PROFILE = Profile(
    framework="nanoGPT",
    requires=("model", "model_args", "iter_num", "best_val_loss"),
    confirms=("model_args",),
    weights=("model",),
    optimizer=("optimizer",),
    counters=("iter_num",),
    config=("config", "model_args"),
    never=("rng", "data position", "scaler", "scheduler"),
    recomputes=("scheduler",),
    next=(Next("iter_num", unit="iteration"),),
)
