"""MMEngine 0.10/0.11 ``Runner.save_checkpoint``."""

from ckpttool.profiles.profile import Next, Note, Profile

PROFILE = Profile(
    framework="MMEngine",
    requires=("meta", "state_dict", "message_hub|meta>mmengine_version"),
    confirms=("meta>mmengine_version",),
    version=("meta>mmengine_version",),
    weights=("state_dict",),
    optimizer=("optimizer",),
    scheduler=("param_schedulers",),
    scaler=("optimizer>loss_scaler",),
    ema=("ema_state_dict",),
    counters=("meta>epoch", "meta>iter"),
    config=("meta>cfg",),
    needs=("scheduler", "message_hub"),
    never=("rng", "data position"),
    next=(Next("meta>epoch"),),
    notes=(
        Note(
            "EMAHook swaps the two while saving: state_dict holds the averaged weights, ema_state_dict the raw ones",
            has=("ema_state_dict",),
        ),
        Note(
            "no message_hub: MMEngine can load this file as weights (load_from) but not resume from it",
            lacks=("message_hub",),
        ),
    ),
)
