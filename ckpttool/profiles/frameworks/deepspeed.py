"""DeepSpeed ``TAG/`` or its ``mp_rank_00_model_states.pt`` alone; ZeRO splits the optimizer off."""

from ckpttool.profiles.profile import Next, Note, Profile

_MODEL = "*mp_rank_*_model_states.pt"
_ZERO = "*_optim_states.pt"

PROFILE = Profile(
    framework="DeepSpeed",
    requires=(f"{_MODEL}|ds_version",),
    confirms=(_MODEL, "module"),
    version=("ds_version", f"{_MODEL}>ds_version"),
    weights=("module", f"{_MODEL}>module"),
    optimizer=("optimizer", f"{_MODEL}>optimizer", f"{_ZERO}>optimizer_state_dict"),
    scheduler=("lr_scheduler", f"{_MODEL}>lr_scheduler"),
    data=("data_sampler", f"{_MODEL}>data_sampler"),
    counters=("global_steps", f"{_MODEL}>global_steps"),
    config=("ds_config", f"{_MODEL}>ds_config"),
    never=("rng",),
    next=(Next(f"global_steps|{_MODEL}>global_steps", unit="step"),),
    notes=(
        Note(
            "under ZeRO the optimizer's state lies in the ..._optim_states.pt files of the same folder, one per rank",
            has=("ds_version",),
            lacks=(_ZERO,),
        ),
    ),
)
