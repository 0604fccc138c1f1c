"""Sections, writers and readiness, told from trees built by hand and from real files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from ckpttool.formats import describe
from ckpttool.layout import Layout
from ckpttool.model import Checkpoint, Global, Mapping, Sequence, Value
from ckpttool.profiles import lay_out
from ckpttool.profiles.frameworks import PROFILES
from ckpttool.profiles.view import View
from ckpttool.profiles.writers import profile_of
from ckpttool.testing.trees import Attributes, T, checkpoint_of

PYTHON_RNG = (3, tuple(range(625)), None)
NUMPY_RNG = ("MT19937", T((624,), "uint32"), 624, 0, 0.0)
TORCH_RNG = T((5056,), "uint8")
MODEL = {"fc.weight": T((4, 3)), "fc.bias": T((4,))}


def adam(*shapes: tuple[int, ...], names: tuple[str, ...] = (), **group: Any) -> dict[str, Any]:
    """An AdamW state dict with one slot for each shape."""
    state = {i: {"step": T(()), "exp_avg": T(s), "exp_avg_sq": T(s)} for i, s in enumerate(shapes)}
    listed: dict[str, Any] = {"param_names": list(names)} if names else {}
    settings = {"lr": 0.1, "betas": (0.9, 0.999), "amsgrad": False, "decoupled_weight_decay": True, **group}
    return {"state": state, "param_groups": [{**listed, **settings, "params": list(range(len(shapes)))}]}


def everything() -> dict[str, Any]:
    """A training state that lacks nothing."""
    return {
        "net": MODEL,
        "optim": adam((4, 3), (4,)),
        "sched": {"last_epoch": 3, "base_lrs": [0.1], "_last_lr": [0.1]},
        "rng": {"python": PYTHON_RNG, "numpy": NUMPY_RNG, "torch": TORCH_RNG},
        "sampler": {"position": 3},
        "global_step": 3,
    }


def laid(value: Any, **options: Any) -> Layout:
    return lay_out(checkpoint_of(value, **options))


def test_a_complete_state_is_exact_and_its_parts_are_found_whatever_they_are_called() -> None:
    layout = laid(everything())
    assert {s.key: s.name for s in layout.sections} == {
        "net": "weights",
        "optim": "optimizer",
        "sched": "scheduler",
        "rng": "rng",
        "sampler": "data",
        "global_step": "counters",
    }
    assert layout.readiness.level == "exact"
    assert layout.readiness.lacks == ()


@pytest.mark.parametrize(
    ("part", "level", "lacks"),
    [
        ("net", "none", "weights"),
        ("optim", "weights-only", "optimizer"),
        ("global_step", "weights-only", "counter"),
        ("sampler", "resumable", "data position"),
    ],
)
def test_a_missing_part_is_named(part: str, level: str, lacks: str) -> None:
    state = everything()
    del state[part]
    readiness = laid(state).readiness
    assert readiness.level == level
    assert lacks in readiness.lacks


@pytest.mark.parametrize("kind", ["python", "numpy", "torch"])
def test_each_generator_counts_on_its_own(kind: str) -> None:
    state = everything()
    del state["rng"][kind]
    readiness = laid(state).readiness
    assert (readiness.level, readiness.lacks) == ("resumable", (f"rng: {kind}",))


def test_a_gpu_run_needs_the_gpu_s_generator() -> None:
    state = everything() | {"net": {"w": T(device="cuda:0")}, "optim": adam((4, 3))}
    assert laid(state).readiness.lacks == ("rng: cuda",)
    state["rng"]["cuda"] = [T((16,), "uint8")]
    assert laid(state).readiness.level == "exact"


def test_a_schedule_that_left_its_mark_on_the_groups_is_missed() -> None:
    state = everything() | {"optim": adam((4, 3), (4,), initial_lr=0.1)}
    del state["sched"]
    assert laid(state).readiness.lacks == ("scheduler",)


def test_float16_training_needs_its_scaler() -> None:
    state = everything() | {"args": Attributes({"amp": True})}
    assert laid(state).readiness.lacks == ("scaler",)
    scaler = {"scale": 1024.0, "growth_factor": 2.0, "_growth_tracker": 1}
    assert laid({**state, "amp_scaler": scaler}).readiness.level == "exact"
    bfloat = state | {"args": Attributes({"amp": True, "amp_dtype": "bfloat16"})}
    assert laid(bfloat).readiness.level == "exact"


def test_an_average_alone_is_no_exact_start() -> None:
    state = everything()
    state["model_ema"] = state.pop("net")
    readiness = laid(state).readiness
    assert (readiness.level, readiness.lacks) == ("resumable", ("raw weights",))


def test_an_optimizer_that_never_stepped_holds_no_state_but_momentum_free_sgd_needs_none() -> None:
    group = {"lr": 0.1, "momentum": 0, "dampening": 0, "params": [0]}
    state = everything() | {"optim": {"state": {}, "param_groups": [group]}}
    assert laid(state).readiness.level == "exact"
    state["optim"] = {"state": {}, "param_groups": [group | {"momentum": 0.9}]}
    assert laid(state).readiness.level == "weights-only"


def test_bare_weights_may_stand_beside_counters() -> None:
    layout = laid({**MODEL, "epoch": 3})
    assert ("weights", ()) in [(s.name, s.path) for s in layout.sections]
    assert [key for key, _ in layout.parameters] == ["fc.weight", "fc.bias"]


def test_a_counter_in_a_note_about_the_best_step_is_no_counter() -> None:
    assert "counter" not in laid({"model": MODEL, "best": {"step": 7}}).readiness.has


def test_config_under_data_is_no_data_position() -> None:
    assert "data position" not in laid({"model": MODEL, "data": {"root": "/imagenet"}}).readiness.has


def test_parameters_leave_buffers_and_ties_out() -> None:
    model = {
        "wte.weight": T((8, 4), tie="e"),
        "bn.running_mean": T((4,)),
        "bn.num_batches_tracked": T((), "int64"),
        "attn.bias": T((1, 1, 8, 8)),
        "proj.bias": T((4,)),
        "lm_head.weight": T((8, 4), tie="e"),
    }
    assert [key for key, _ in laid(model).parameters] == ["wte.weight", "proj.bias"]


# --- frameworks --------------------------------------------------------------------------------------------

TREES: dict[str, dict[str, Any]] = {
    "Lightning": {"pytorch-lightning_version": "1.5", "state_dict": MODEL, "epoch": 1, "global_step": 2},
    "MMEngine": {"meta": {"mmengine_version": "0.10.7", "epoch": 2}, "state_dict": MODEL, "message_hub": {}},
    "mmcv": {"meta": {"mmcv_version": "1.7.0", "epoch": 2}, "state_dict": MODEL},
    "timm": {"arch": "r", "epoch": 3, "state_dict": MODEL, "version": 2, "args": Attributes({"lr": 1.0})},
    "PyTorch ImageNet example": {"epoch": 1, "arch": "r", "state_dict": MODEL, "best_acc1": 0.5},
    "Composer": {"state": {"model": MODEL, "timestamp": {"epoch": 1}}, "rng": [{"python": PYTHON_RNG}]},
    "Megatron-LM": {"checkpoint_version": 3.0, "iteration": 9, "model": MODEL, "args": Attributes({"n": 1})},
    "fairseq": {"model": MODEL, "optimizer_history": [{"num_updates": 9}], "extra_state": {"best": 1}},
    "ultralytics": {"epoch": -1, "model": MODEL, "ema": None, "train_args": {"lr": 1}, "version": "8.4.0"},
    "nanoGPT": {"model": MODEL, "model_args": {}, "iter_num": 5, "best_val_loss": 1.0, "optimizer": None},
    "Fabric (litgpt)": {"model": MODEL, "iter_num": 5, "step_count": 2},
    "torchtune": {"optimizer": adam((2,)), "epochs_run": 1, "max_steps_per_epoch": None, "seed": 1},
    "OpenNMT-py": {"model": MODEL, "generator": MODEL, "vocab": {}, "opt": {}, "optim": {"training_step": 5}},
    "ignite": {"model": MODEL, "trainer": {"iteration": 5, "epoch_length": 2, "max_epochs": 3}},
    "detectron2": {"model": MODEL, "trainer": {"iteration": 4, "_trainer": {}}, "iteration": 4},
    "detectron2 (fvcore)": {"model": MODEL, "optimizer": adam((2,)), "scheduler": {}, "iteration": 4},
    "detectron2 model zoo": {"model": MODEL, "__author__": "Caffe2"},
    "torchvision references": {
        "model": MODEL, "optimizer": adam((4, 3), (4,)), "lr_scheduler": {}, "epoch": 3, "args": {"lr": 1}
    },
    "StyleGAN": {"G": MODEL, "D": MODEL, "G_ema": MODEL, "training_set_kwargs": {}},
    "Whisper": {"dims": {"n_mels": 80}, "model_state_dict": MODEL},
    "PyTorch tutorial": {"model_state_dict": MODEL, "optimizer_state_dit": adam((4, 3), (4,)), "epoch": 1},
    "Stable Diffusion (LDM)": {"state_dict": {"model.diffusion_model.x": T()}, "global_step": 4},
    "DeepSpeed": {"module": MODEL, "ds_version": "0.19", "global_steps": 4, "optimizer": None},
}  # fmt: skip


@pytest.mark.parametrize("framework", TREES)
def test_a_framework_is_told_by_its_keys(framework: str) -> None:
    writer = laid(TREES[framework]).writer
    assert writer is not None
    assert writer.framework == framework
    assert writer.clues


def test_every_profile_has_a_tree_or_a_directory_here() -> None:
    folders = {"transformers Trainer", "accelerate", "torch.distributed.checkpoint"}
    assert {p.framework for p in PROFILES} == TREES.keys() | folders


def test_old_lightning_without_a_version_key_is_told_by_its_callbacks() -> None:
    tree = {"state_dict": MODEL, "global_step": 1, "early_stop_callback_wait": 0, "optimizer_states": []}
    writer = laid(tree).writer
    assert writer is not None
    assert (writer.framework, writer.version, writer.confidence) == ("Lightning", None, "confirmed")


@pytest.mark.parametrize(
    ("tree", "following"),
    [
        (TREES["timm"] | {"optimizer": adam((4, 3), (4,))}, "epoch 4"),
        (TREES["PyTorch ImageNet example"] | {"optimizer": adam((4, 3), (4,))}, "epoch 1"),
        (TREES["nanoGPT"] | {"optimizer": adam((4, 3), (4,))}, "iteration 5"),
        (TREES["PyTorch tutorial"], ""),
    ],
)
def test_where_training_continues(tree: dict[str, Any], following: str) -> None:
    assert laid(tree).readiness.next == following


def test_a_stripped_ultralytics_file_is_noted() -> None:
    assert any("stripped" in note for note in laid(TREES["ultralytics"]).notes)
    assert laid(TREES["ultralytics"] | {"epoch": 3}).notes == ()


def test_trainer_directories_are_told_by_their_files() -> None:
    tree = {
        "model.safetensors": MODEL,
        "optimizer.pt": adam((4, 3), (4,)),
        "scheduler.pt": {"last_epoch": 2, "_last_lr": [0.1]},
        "rng_state.pth": {"python": PYTHON_RNG, "numpy": NUMPY_RNG, "cpu": TORCH_RNG},
        "trainer_state.json": {"global_step": 2},
    }
    layout = laid(tree, format="directory", files=tuple(tree))
    assert layout.writer is not None
    assert layout.writer.framework == "transformers Trainer"
    assert (layout.readiness.level, layout.readiness.next) == ("exact", "step 2")
    assert not layout.ordered  # safetensors sorts, so shapes prove nothing
    assert layout.optimizers[0].named == "none"


FIXTURES = {
    "training.pth": (None, "exact"),
    "checkpoint.pth.tar": ("PyTorch ImageNet example", "resumable"),
    "torchvision_references.pth": ("torchvision references", "resumable"),
    "nanogpt/ckpt.pt": ("nanoGPT", "resumable"),
    "detectron2.pth": ("detectron2", "resumable"),
    "lightning.ckpt": ("Lightning", "resumable"),
    "lightning_weights.ckpt": ("Lightning", "weights-only"),
    "timm/checkpoint-3.pth.tar": ("timm", "resumable"),
    "mmengine.pth": ("MMEngine", "resumable"),
    "unnamed_optimizer.pth": ("PyTorch tutorial", "resumable"),
    "trainer/checkpoint-2": ("transformers Trainer", "exact"),
    "accelerate": ("accelerate", "resumable"),
    "mlp.safetensors": (None, "weights-only"),
    "mlp.pth": (None, "weights-only"),
    "module.pth": (None, "weights-only"),
    "sharded": (None, "weights-only"),
}


@pytest.mark.parametrize("name", FIXTURES)
def test_real_files(name: str, fixtures_dir: Path) -> None:
    layout = lay_out(describe(fixtures_dir / name))
    framework = None if layout.writer is None else layout.writer.framework
    assert (framework, layout.readiness.level) == FIXTURES[name]


# --- any tree ----------------------------------------------------------------------------------------------


def test_trees_that_no_writer_writes_are_laid_out_all_the_same() -> None:
    odd = [
        Checkpoint("x", "pickle"),
        checkpoint_of(None),
        checkpoint_of([T(), [T()]]),
        checkpoint_of({"state": {}, "param_groups": []}),
        checkpoint_of({"state": {0: None, 1: [T()]}, "param_groups": [None, {"params": 3}, {"params": [T()]}]}),
        checkpoint_of({"optimizer": {"state": {}, "param_groups": {}}, "scheduler": None, "epoch": None}),
        Checkpoint("x", "pickle", (Global("a", "b"),), 0),
        Checkpoint("x", "pickle", (Value("k"), Mapping("dict", (0,), (1,))), 1),
        Checkpoint("x", "pickle", (Sequence("list", (0, 0)),), 0),
    ]
    for checkpoint in odd:
        lay_out(checkpoint)


def test_time_grows_with_tensors_not_with_their_square() -> None:
    def seconds(count: int) -> float:
        shapes = [(2, 2)] * count
        model = {f"layers.{i}.weight": T((2, 2)) for i in range(count)}
        checkpoint = checkpoint_of({"model": model, "optimizer": adam(*shapes), "epoch": 1})
        start = time.perf_counter()
        lay_out(checkpoint)
        return time.perf_counter() - start

    small = min(seconds(1000) for _ in range(3))
    assert min(seconds(8000) for _ in range(3)) < 8 * 4 * small


def test_profiles_look_only_where_the_file_has_something() -> None:
    assert profile_of(View(checkpoint_of({}))) is None


# --- models in parts -------------------------------------------------------------------------------------------

HALVES = {"encoder": {"weight": T((6, 4)), "bias": T((6,))}, "decoder": {"weight": T((3, 6)), "bias": T((3,))}}


def test_an_optimizer_over_a_model_in_two_dicts_is_matched_with_both() -> None:
    layout = laid({"model": HALVES, "optimizer": adam((6, 4), (6,), (3, 6), (3,))})
    names = ["encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"]
    assert [slot.name for slot in layout.optimizers[0].slots] == names
    assert [name for name, _ in layout.parameters] == names
    named = laid({"model": HALVES, "optimizer": adam((6,), (3, 6), names=("encoder.bias", "decoder.weight"))})
    assert [slot.parameter for slot in named.optimizers[0].slots] == [
        dict(named.parameters)[name] for name in names[1:3]
    ]


def test_an_optimizer_of_each_part_is_matched_with_its_part() -> None:
    optimizers = [adam((6, 4), (6,)), adam((3, 6), (3,))]
    layout = laid({"model": HALVES, "optimizers": optimizers})
    assert [[s.name for s in one.slots] for one in layout.optimizers] == [["weight", "bias"]] * 2


def test_what_stands_beside_an_encoder_is_a_part_of_the_model_too() -> None:
    layout = laid({"model": {"encoder": HALVES["encoder"], "proj": HALVES["decoder"]}, "epoch": 1})
    assert [s.key for s in layout.sections if s.name == "weights"] == ["model.encoder", "model.proj"]
    beside = laid({"model": {"state_dict": HALVES["encoder"], "stats": HALVES["decoder"]}, "epoch": 1})
    assert [s.key for s in beside.sections if s.name == "weights"] == ["model.state_dict"]


def test_lists_that_hold_each_other_many_times_are_looked_at_once() -> None:
    inner: list[Any] = ["x"]
    checkpoint = checkpoint_of({"a": inner})
    nodes = list(checkpoint.nodes)
    at = next(i for i, node in enumerate(nodes) if isinstance(node, Sequence))
    for _ in range(6):
        nodes.append(Sequence("list", (at,) * 60))
        at = len(nodes) - 1
    root = nodes[checkpoint.root or 0]
    assert isinstance(root, Mapping)
    nodes.append(Mapping("dict", root.keys, (at,)))
    assert lay_out(Checkpoint("x.pt", "torch-zip", tuple(nodes), len(nodes) - 1)).sections == ()
