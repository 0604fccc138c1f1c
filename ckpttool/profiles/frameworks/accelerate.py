"""accelerate ``save_state``: one file per prepared object, ``random_states_N.pkl`` for each rank."""

from ckpttool.profiles.profile import Profile

PROFILE = Profile(
    framework="accelerate",
    requires=("random_states_*.pkl",),
    confirms=("random_states_*.pkl",),
    forbids=("trainer_state.json",),
    weights=("model*.safetensors|pytorch_model*.bin",),
    optimizer=("optimizer*.bin",),
    scheduler=("scheduler*.bin",),
    scaler=("scaler.pt",),
    rng=("random_states_*.pkl",),
    data=("sampler*.bin", "dl_state_dict*.bin"),
    counters=("train_state.json", "random_states_0.pkl>step"),
)
