"""Composer 0.3x: the most complete of all, generators of every rank and the data loader's state included."""

from ckpttool.profiles.profile import Next, Profile

PROFILE = Profile(
    framework="Composer",
    requires=("state>model", "rng"),
    confirms=("state>timestamp", "state>rank_zero_seed"),
    version=("state>metadata>composer_env_info>composer_version", "state>metadata>composer_version"),
    weights=("state>model",),
    optimizer=("state>optimizers",),
    scheduler=("state>schedulers",),
    scaler=("state>scaler",),
    rng=("rng",),
    data=("state>dataset_state",),
    counters=("state>timestamp",),
    next=(
        Next("state>timestamp>Timestamp>epoch"),
        Next("state>timestamp>epoch"),
        Next("state>timestamp>iteration", unit="iteration"),
    ),
)
