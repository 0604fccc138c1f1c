"""litgpt's pretraining and finetuning states, written through Lightning Fabric."""

from ckpttool.profiles.profile import Next, Profile

PROFILE = Profile(
    framework="Fabric (litgpt)",
    requires=("model", "iter_num", "step_count"),
    confirms=("step_count",),
    weights=("model",),
    optimizer=("optimizer",),
    scheduler=("scheduler",),
    data=("train_dataloader",),
    counters=("iter_num", "step_count"),
    never=("rng",),
    recomputes=("scheduler",),
    next=(Next("iter_num", unit="iteration"),),
)
