"""The PyTorch tutorial "Saving and loading a general checkpoint", as people have copied it."""

from ckpttool.profiles.profile import Note, Profile

_OPTIMIZER = "optimizer_state_dict|optimizer_state_dit|optimizer_state|optim_state_dict|optimiser_state_dict"

PROFILE = Profile(
    framework="PyTorch tutorial",
    requires=("model_state_dict", _OPTIMIZER),
    weights=("model_state_dict",),
    optimizer=(_OPTIMIZER,),
    scheduler=("scheduler_state_dict|lr_scheduler_state_dict|scheduler",),
    scaler=("scaler_state_dict|scaler",),
    counters=("epoch",),
    notes=(
        Note(
            "the key optimizer_state_dit is misspelt: a loader that looks for optimizer_state_dict will not find it",
            has=("optimizer_state_dit",),
        ),
    ),
)
