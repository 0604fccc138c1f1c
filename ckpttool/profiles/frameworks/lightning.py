"""Lightning 2.6 ``CheckpointConnector.dump_checkpoint``; the loops hold the authoritative counters."""

from ckpttool.profiles.profile import Next, Note, Profile

PROFILE = Profile(
    framework="Lightning",
    requires=("pytorch-lightning_version", "state_dict"),
    confirms=("pytorch-lightning_version",),
    version=("pytorch-lightning_version",),
    weights=("state_dict",),
    optimizer=("optimizer_states",),
    scheduler=("lr_schedulers",),
    scaler=("MixedPrecision|MixedPrecisionPlugin|native_amp_scaling_state|amp_scaling_state",),
    counters=("epoch", "global_step", "loops>fit_loop>epoch_progress>current>completed"),
    config=("hyper_parameters", "datamodule_hyper_parameters", "hparams"),
    never=("rng", "data position"),
    next=(Next("loops>fit_loop>epoch_progress>current>completed"), Next("epoch")),
    notes=(
        Note(
            "saved with save_weights_only=True: Lightning left optimizer, scheduler and callbacks out on purpose",
            lacks=("optimizer_states",),
        ),
        Note("no loops: written before Lightning 1.6, which later versions upgrade while loading", lacks=("loops",)),
    ),
)
