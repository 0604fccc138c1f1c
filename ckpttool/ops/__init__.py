"""Operations on tensors, one small file each; all are ``ckpttool.expressions.Op``.

An operation that moves elements (``Moves``) works on bits, so any whole-byte type will do, and moments of the
parameter follow through the same operation. One that computes (``Mixes``) works on numbers, and moments are dropped,
except: a ``Cast`` leaves them as they are, ``Pad`` gives its new rows zeros.

What migrations that people have had to do are made of, names aside:

========================================= ===============================================================
DenseNet, BERT gamma/beta, spectral norm, only names
wrappers, BEiT-3, torchtune, wav2vec2,
diffusers, Lightning, in-house moves
torchvision heads, SyncBatchNorm          names, ``Fill``
weight norm folded, unfolded              ``FoldWeightNorm``, ``UnfoldWeightNorm``
pruning made permanent                    ``Multiply``
in_proj of attention, timm ViT to HF      ``Split``, ``Concat``
OpenAI CLIP to timm                       ``Transpose``, ``FillLike``
DINOv2 to timm                            ``Slice``, ``Add``
CLIP to CustomTextCLIP                    ``Reshape``, ``Fill``, ``Arange``
position and patch embeddings resized     ``ResizePositions``, ``ResizePatches``, ``Interpolate``, ``Sum``
nanoGPT and GPT-2                         ``Transpose``, ``Pad``, ``Slice``
Llama rotary heads, tensor-parallel parts ``ViewPermute``, ``Concat`` along 0 or 1
GPT-NeoX, Falcon, Megatron qkv            ``ViewPermute``
Mixtral experts packed                    ``Stack``, ``Concat``
Whisper, fairseq decoders                 names, ties
Stable Diffusion to diffusers             ``Squeeze``, ``Unsqueeze``
kohya and PEFT adapters                   ``Split``, ``Scale``, ``Multiply``, ``MergeLowRank``
Caffe2 Detectron                          ``Roll``, ``Slice``
mmdet 1 to 2                              ``Reorder``, ``Slice``
mixed precision                           ``Cast``
========================================= ===============================================================
"""

from __future__ import annotations

from ckpttool.ops.arithmetic import Add, MatMul, MergeLowRank, Multiply, Scale, Sum
from ckpttool.ops.base import Mixes, Moments, Moves
from ckpttool.ops.cast import Cast
from ckpttool.ops.concat import Concat, Stack
from ckpttool.ops.fill import Arange, Fill, FillLike
from ckpttool.ops.interpolate import Interpolate
from ckpttool.ops.moments import for_moments, moments_of
from ckpttool.ops.pad import Pad
from ckpttool.ops.paste import Paste
from ckpttool.ops.patches import ResizePatches
from ckpttool.ops.permute import Permute, Transpose
from ckpttool.ops.positions import ResizePositions
from ckpttool.ops.reorder import Reorder
from ckpttool.ops.repeat import Expand, Repeat
from ckpttool.ops.reshape import Reshape, Squeeze, Unsqueeze
from ckpttool.ops.roll import Roll
from ckpttool.ops.slice import Slice, tiles
from ckpttool.ops.split import Split, Unstack
from ckpttool.ops.view_permute import ViewPermute
from ckpttool.ops.weight_norm import FoldWeightNorm, UnfoldWeightNorm

__all__ = [
    "Add",
    "Arange",
    "Cast",
    "Concat",
    "Expand",
    "Fill",
    "FillLike",
    "FoldWeightNorm",
    "Interpolate",
    "MatMul",
    "MergeLowRank",
    "Mixes",
    "Moments",
    "Moves",
    "Multiply",
    "Pad",
    "Paste",
    "Permute",
    "Reorder",
    "Repeat",
    "Reshape",
    "ResizePatches",
    "ResizePositions",
    "Roll",
    "Scale",
    "Slice",
    "Split",
    "Squeeze",
    "Stack",
    "Sum",
    "Transpose",
    "UnfoldWeightNorm",
    "Unsqueeze",
    "Unstack",
    "ViewPermute",
    "for_moments",
    "moments_of",
    "tiles",
]
