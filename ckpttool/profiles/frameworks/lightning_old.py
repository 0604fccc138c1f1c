"""Lightning before 0.10: counters and callback states at the top, no version key in the oldest files."""

from ckpttool.profiles.profile import Next, Profile

PROFILE = Profile(
    framework="Lightning",
    requires=("state_dict", "global_step", "checkpoint_callback_best*|early_stop_callback_*"),
    confirms=("optimizer_states",),
    weights=("state_dict",),
    optimizer=("optimizer_states",),
    scheduler=("lr_schedulers",),
    scaler=("native_amp_scaling_state|amp_scaling_state",),
    counters=("epoch", "global_step"),
    config=("hparams", "hyper_parameters"),
    never=("rng", "data position"),
    next=(Next("epoch"),),
)
