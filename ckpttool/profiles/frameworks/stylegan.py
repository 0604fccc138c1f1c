"""StyleGAN2 and 3: a plain pickle of networks that carry their own source; never an optimizer."""

from ckpttool.profiles.profile import Note, Profile

PROFILE = Profile(
    framework="StyleGAN",
    requires=("G", "D", "G_ema"),
    confirms=("training_set_kwargs",),
    weights=("G", "D"),
    ema=("G_ema",),
    config=("training_set_kwargs",),
    never=("optimizer", "counter", "rng", "data position"),
    notes=(Note("StyleGAN saves no optimizer: --resume starts a new run from these networks"),),
)
