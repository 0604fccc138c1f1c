"""ultralytics 8.x (YOLO): whole modules, the average instead of the weights that were trained."""

from ckpttool.profiles.profile import Next, Note, Profile

PROFILE = Profile(
    framework="ultralytics",
    requires=("epoch", "model", "ema", "train_args"),
    confirms=("train_args",),
    version=("version",),
    weights=("model",),
    optimizer=("optimizer",),
    scaler=("scaler",),
    ema=("ema",),
    counters=("epoch", "updates"),
    config=("train_args",),
    needs=("scaler",),
    never=("rng", "scheduler", "raw weights", "data position"),
    recomputes=("scheduler",),
    next=(Next("epoch", 1),),
    notes=(
        Note(
            "stripped (epoch -1): optimizer, scaler and EMA were removed when training ended; it cannot be resumed",
            equals=(("epoch", -1),),
        ),
    ),
)
