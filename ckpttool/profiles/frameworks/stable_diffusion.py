"""Latent diffusion and Stable Diffusion: several networks under well-known prefixes."""

from ckpttool.profiles.profile import Profile

_KEYS = "model.diffusion_model.*"

PROFILE = Profile(
    framework="Stable Diffusion (LDM)",
    requires=(f"state_dict>{_KEYS}|{_KEYS}",),
    confirms=("state_dict>first_stage_model.*|first_stage_model.*",),
    version=("pytorch-lightning_version",),
    weights=("state_dict",),
    optimizer=("optimizer_states",),
    scheduler=("lr_schedulers",),
    counters=("epoch", "global_step"),
    never=("rng", "data position"),
)
