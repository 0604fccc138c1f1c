"""ignite ``Checkpoint``: whatever was handed to ``to_save``, the engine's counters under ``trainer``."""

from ckpttool.profiles.profile import Next, Profile

PROFILE = Profile(
    framework="ignite",
    requires=("trainer>iteration", "trainer>epoch_length"),
    confirms=("trainer>epoch_length",),
    rng=("trainer>rng_states",),
    counters=("trainer>iteration",),
    next=(Next("trainer>iteration", unit="iteration"),),
)
