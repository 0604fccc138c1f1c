"""detectron2: ``DefaultTrainer`` nests its trainer; ``plain_train_net`` keeps four keys at the top."""

from ckpttool.profiles.profile import Next, Profile

PROFILE = Profile(
    framework="detectron2",
    requires=("model", "trainer", "iteration"),
    confirms=("trainer>_trainer",),
    weights=("model",),
    optimizer=("trainer>_trainer>optimizer|trainer>optimizer",),
    scheduler=("trainer>hooks>LRScheduler", "trainer>hooks>LearningRateScheduler"),
    scaler=("trainer>_trainer>grad_scaler",),
    counters=("iteration", "trainer>iteration"),
    needs=("scheduler",),
    never=("rng", "data position"),
    next=(Next("iteration", 1, "iteration"),),
)
