"""Megatron-LM ``model_optim_rng.pt`` of one rank; its arguments hold the data position."""

from ckpttool.profiles.profile import Next, Profile

PROFILE = Profile(
    framework="Megatron-LM",
    requires=("checkpoint_version", "iteration", "model|model0", "args"),
    confirms=("checkpoint_version",),
    version=("checkpoint_version",),
    weights=("model|model0", "model1", "model2", "model3"),
    optimizer=("optimizer",),
    scheduler=("opt_param_scheduler|lr_scheduler",),
    rng=("rng_state|random_rng_state",),
    data=("args>consumed_train_samples",),
    counters=("iteration",),
    config=("args",),
    needs=("scheduler",),
    next=(Next("iteration", unit="iteration"),),
)
