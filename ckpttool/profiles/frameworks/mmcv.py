"""mmcv 1.x ``save_checkpoint``: meta, state_dict, optimizer, no message hub."""

from ckpttool.profiles.profile import Next, Note, Profile

PROFILE = Profile(
    framework="mmcv",
    requires=("meta", "state_dict"),
    confirms=("meta>mmcv_version",),
    forbids=("message_hub", "meta>mmengine_version"),
    version=("meta>mmcv_version",),
    weights=("state_dict",),
    optimizer=("optimizer",),
    counters=("meta>epoch", "meta>iter"),
    config=("meta>config",),
    never=("rng", "data position", "scheduler"),
    recomputes=("scheduler",),
    next=(Next("meta>epoch"),),
    notes=(
        Note(
            "written by mmcv 1.x: MMEngine takes it as weights (load_from), not for a resume",
            has=("meta>mmcv_version",),
        ),
    ),
)
