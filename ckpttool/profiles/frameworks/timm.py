"""timm 1.0 ``CheckpointSaver``. The schedule is rebuilt from the epoch."""

from ckpttool.profiles.profile import Next, Note, Profile

PROFILE = Profile(
    framework="timm",
    requires=("arch", "epoch", "state_dict", "version"),
    confirms=("version",),
    weights=("state_dict",),
    optimizer=("optimizer",),
    scaler=("amp_scaler|amp",),
    ema=("state_dict_ema",),
    counters=("epoch",),
    config=("args",),
    never=("rng", "scheduler", "data position"),
    recomputes=("scheduler",),
    next=(Next("epoch", 1),),
    notes=(
        Note(
            "version 1 counts the epoch that comes next, version 2 the one that was finished", equals=(("version", 1),)
        ),
    ),
)
