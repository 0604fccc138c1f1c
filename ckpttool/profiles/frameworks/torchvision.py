"""torchvision's reference scripts (``references/classification/train.py`` and its siblings)."""

from ckpttool.profiles.profile import Next, Profile

PROFILE = Profile(
    framework="torchvision references",
    requires=("model", "optimizer", "lr_scheduler", "epoch", "args"),
    weights=("model",),
    optimizer=("optimizer",),
    scheduler=("lr_scheduler",),
    scaler=("scaler",),
    ema=("model_ema",),
    counters=("epoch",),
    config=("args",),
    needs=("scheduler",),
    never=("rng", "data position"),
    next=(Next("epoch", 1),),
)
