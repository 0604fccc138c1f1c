"""torchtune 0.7 ``recipe_state.pt``; the weights stand beside it in the epoch's folder."""

from ckpttool.profiles.profile import Next, Note, Profile

PROFILE = Profile(
    framework="torchtune",
    requires=("optimizer", "epochs_run", "max_steps_per_epoch"),
    confirms=("epochs_run",),
    optimizer=("optimizer",),
    data=("dataloader",),
    rng=("rng_state",),
    counters=("epochs_run", "steps_run"),
    never=("scheduler",),
    next=(Next("epochs_run"),),
    notes=(Note("the recipe's state alone: torchtune saves the weights in the epoch's folder beside it"),),
)
