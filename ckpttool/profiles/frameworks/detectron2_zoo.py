"""detectron2's model zoo: weights with a note on their author, for matching names by heuristics."""

from ckpttool.profiles.profile import Note, Profile

PROFILE = Profile(
    framework="detectron2 model zoo",
    requires=("model", "__author__"),
    confirms=("__author__",),
    weights=("model",),
    notes=(Note("published weights: detectron2's model zoo holds nothing to resume from"),),
)
