"""fairseq 0.12 ``Trainer.state_dict``. Generators are seeded anew for every update."""

from ckpttool.profiles.profile import Next, Note, Profile

PROFILE = Profile(
    framework="fairseq",
    requires=("model", "optimizer_history", "extra_state"),
    confirms=("optimizer_history",),
    weights=("model",),
    optimizer=("last_optimizer_state",),
    scheduler=("optimizer_history",),
    scaler=("last_optimizer_state>loss_scale",),
    ema=("extra_state>ema", "extra_state>ema_fp32_params"),
    data=("extra_state>train_iterator",),
    counters=("optimizer_history>*>num_updates",),
    config=("args", "cfg"),
    needs=("scheduler",),
    never=("rng",),
    rng_kinds=(),
    next=(Next("optimizer_history>*>num_updates", unit="update"),),
    notes=(
        Note(
            "no last_optimizer_state: saved with --no-save-optimizer-state, so a resume starts the optimizer afresh",
            lacks=("last_optimizer_state",),
        ),
    ),
)
