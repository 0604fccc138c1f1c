"""OpenAI Whisper: dimensions and weights, as published."""

from ckpttool.profiles.profile import Profile

PROFILE = Profile(
    framework="Whisper",
    requires=("dims", "model_state_dict"),
    confirms=("dims>n_mels",),
    weights=("model_state_dict",),
    config=("dims",),
    never=("optimizer", "counter", "rng", "data position"),
)
