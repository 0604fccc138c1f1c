"""transformers ``Trainer`` 4.x and 5.x ``checkpoint-N/``; ``trainer_state.json`` is written last.

A resume skips the batches that ``global_step`` counts, so the data position is recorded by that file.
"""

from ckpttool.profiles.profile import Next, Note, Profile

PROFILE = Profile(
    framework="transformers Trainer",
    requires=("trainer_state.json|training_args.bin",),
    confirms=("trainer_state.json",),
    version=("config.json>transformers_version",),
    weights=(
        "model*.safetensors|pytorch_model*.bin|adapter_model.*|model.safetensors.index.json",
        "pytorch_model_fsdp*",
    ),
    optimizer=("optimizer.pt|optimizer.bin|optimizer_0*",),
    scheduler=("scheduler.pt",),
    scaler=("scaler.pt",),
    rng=("rng_state*.pth",),
    data=("trainer_state.json",),
    counters=("trainer_state.json>global_step|trainer_state.json",),
    config=("training_args.bin", "config.json"),
    needs=("scheduler",),
    next=(Next("trainer_state.json>global_step", unit="step"),),
    notes=(
        Note(
            "saved with save_only_model=True: the Trainer left optimizer, scheduler and generators out on purpose",
            has=("trainer_state.json",),
            lacks=(
                "optimizer.pt",
                "optimizer.bin",
                "scheduler.pt",
                "rng_state*.pth",
                "*optim_states.pt",
                "optimizer_0*",
            ),
        ),
    ),
)
