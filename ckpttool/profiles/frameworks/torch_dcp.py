"""torch's distributed checkpoints (torchtitan, FSDP2): ``.metadata`` is written last."""

from ckpttool.profiles.profile import Profile

PROFILE = Profile(
    framework="torch.distributed.checkpoint", requires=(".metadata", "__*_*.distcp"), confirms=(".metadata",)
)
