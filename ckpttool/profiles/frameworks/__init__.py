"""Every framework that is recognised, the most telling first: the first that matches names the writer.

A profile is one small file beside this one. Sources are the frameworks' own saving code, of the version that
its docstring names.
"""

from __future__ import annotations

from importlib import import_module

from ckpttool.profiles.profile import Profile

_NAMES = (
    "hf_trainer accelerate deepspeed torch_dcp stable_diffusion lightning lightning_old mmengine mmcv "
    "composer "
    "megatron fairseq ultralytics timm imagenet_example nanogpt litgpt torchtune opennmt ignite detectron2 "
    "detectron2_zoo torchvision detectron2_plain stylegan whisper tutorial"
).split()

PROFILES: tuple[Profile, ...] = tuple(import_module(f"{__name__}.{name}").PROFILE for name in _NAMES)
