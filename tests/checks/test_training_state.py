"""Consistency, hygiene, readiness: each rule fires on the smallest tree that breaks it, and on no healthy one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ckpttool.checks import rules
from ckpttool.checks.file_name_hash import wanted_digests
from ckpttool.checks.wrapper_prefix import wrappers_of
from ckpttool.formats import describe
from ckpttool.measures import Measures, TensorMeasure
from ckpttool.model import Checkpoint, Damage, Storage, Tensor
from ckpttool.profiles import lay_out
from ckpttool.rules import Context
from ckpttool.testing.trees import T, checkpoint_of

MODEL = {"fc.weight": T((4, 3)), "fc.bias": T((4,))}
MINE = [r for r in rules().values() if r.code[2] in "567" and r.judge is not None and r.name != "duplicate-content"]


def slot(*shape: int, dtype: str = "float32", square: str = "", device: str = "cpu") -> dict[str, Any]:
    """One parameter's Adam state."""
    return {"step": T((), device=device), "exp_avg": T(shape, dtype), "exp_avg_sq": T(shape, square or dtype)}


def adam(state: dict[Any, Any], params: list[Any] | None = None, **group: Any) -> dict[str, Any]:
    settings = {"lr": 0.1, "betas": (0.9, 0.999), "amsgrad": False, "capturable": False, "initial_lr": 0.1, **group}
    return {"state": state, "param_groups": [{**settings, "params": params or list(state)}]}


def training(**changes: Any) -> dict[str, Any]:
    """A healthy training state, with parts exchanged."""
    names = {"param_names": ["fc.weight", "fc.bias"]}
    return {
        "model": MODEL,
        "optimizer": adam({0: slot(4, 3), 1: slot(4)}, **names),
        "scheduler": {"last_epoch": 3, "base_lrs": [0.1], "_last_lr": [0.1]},
        "scaler": {"scale": 1024.0, "growth_factor": 2.0, "growth_interval": 9, "_growth_tracker": 1},
        "ema": {f"module.{key}": value for key, value in MODEL.items()} | {"n_averaged": T((), "int64")},
        "global_step": 3,
        **changes,
    }


def found(value: Any, rule: str, measures: Measures | None = None, **options: Any) -> list[Damage]:
    checkpoint = value if isinstance(value, Checkpoint) else checkpoint_of(value, **options)
    context = Context(checkpoint, lay_out(checkpoint), measures)
    judge = rules()[rule].judge
    assert judge is not None
    return list(judge(context))


NAMES = {"param_names": ["fc.weight", "fc.bias"]}
MASK = {"h.attn.bias": T((1, 1, 8, 8)), "h.attn.masked_bias": T(())}
BATCH_NORM = {"bn.weight": T((4,)), "bn.running_mean": T((4,)), "_metadata": {"bn": {"version": 2}}}
TIED = {"lm_head.weight": T((8, 4)), "model.embed_tokens.weight": T((8, 4))}

FAULTS: list[tuple[str, Any]] = [
    ("group-size-mismatch", training(optimizer=adam({i: slot(4) for i in range(5)}))),
    ("group-size-mismatch", training(optimizer=adam({0: slot(4, 3)}, [0, 0]))),
    ("moment-shape", training(optimizer=adam({0: slot(4, 2), 1: slot(4)}, **NAMES))),
    ("moment-shape", {"optimizer": adam({0: {"exp_avg": T((4,)), "exp_avg_sq": T((5,))}})}),
    ("moment-dtype", training(optimizer=adam({0: slot(4, 3, square="bfloat16"), 1: slot(4)}, **NAMES))),
    ("scheduler-lr", training(scheduler={"last_epoch": 3, "_last_lr": [0.05]})),
    ("base-lr", training(scheduler={"last_epoch": 3, "base_lrs": [0.05], "_last_lr": [0.1]})),
    ("base-lr", training(scheduler={"last_epoch": 3, "base_lrs": [0.1, 0.1]})),
    ("step-mismatch", training(optimizer=adam({0: slot(4, 3) | {"step": 5000}}))),
    ("scaler-state", training(scaler={"scale": 0.0, "growth_factor": 2.0, "growth_interval": 9, "_growth_tracker": 1})),
    ("scaler-state", training(scaler={"scale": 2.0, "growth_factor": 2.0, "growth_interval": 9})),
    ("scaler-state", training(scaler={"scale": float("inf"), "_growth_tracker": 0})),
    ("ema-mismatch", training(ema={"fc.weight": T((4, 9)), "fc.bias": T((4,))})),
    ("ema-mismatch", training(ema={"fc.weight": T((4, 3)), "old.bias": T((4,))})),
    ("ema-mismatch", {"model": {"w": T(tie="a")}, "ema": {"w": T(tie="a")}}),
    ("half-precision-moments", training(optimizer=adam({0: slot(4, 3, dtype="float16")}))),
    ("half-precision-moments", training(optimizer=adam({0: slot(4, 3, dtype="bfloat16"), 1: slot(4)}, **NAMES))),
    ("zero3-placeholders", {"a.weight": T((0,)), "b.weight": T((0,)), "c.bias": T((4,))}),
    ("untied-pair", {"state_dict": TIED, "config": {"tie_word_embeddings": True}}),
    ("stale-buffer", MODEL | MASK),
    ("stale-buffer", {"state_dict": BATCH_NORM}),
    ("optimizer-order", training(optimizer=adam({0: slot(4), 1: slot(4, 3)}, **NAMES))),
    ("orphan-state", training(optimizer=adam({0: slot(4, 3), 9: slot(4)}, [0]))),
    ("unaddressed-bytes", {"w": T((4, 3), spare=2 << 20)}),
    ("unaddressed-bytes", {"w": T((4, 3), spare=70_000)}),
    ("wrapper-prefix", {"_orig_mod.module.a": T(), "_orig_mod.module.b": T()}),
    ("wrapper-prefix", {"model": {"net._orig_mod.a": T(), "net._orig_mod.b": T()}}),
    ("device-bound-state", training(optimizer=adam({0: slot(4, 3, device="cuda:0")}))),
    ("device-bound-state", training(rng=T((5056,), "uint8", "cuda:0"))),
    ("not-resumable", {"model": MODEL, "epoch": 3}),
    ("not-exact", training()),
    ("framework-note", {"pytorch-lightning_version": "2.6", "state_dict": MODEL, "loops": {}}),
]


@pytest.mark.parametrize(("rule", "value"), FAULTS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(FAULTS)])
def test_the_fault_is_found(rule: str, value: Any) -> None:
    damage = found(value, rule)
    assert damage
    assert {d.rule for d in damage} == {rule}


HEALTHY: dict[str, Any] = {
    "training": training(),
    "weights": MODEL,
    "averaged": {"n_averaged": T((), "int64"), "module.a": T(), "module.b": T()},
    "text_module": {"text_module.fc": T(), "text_module.gc": T()},
    "capturable": training(optimizer=adam({0: slot(4, 3, device="cuda:0")}, capturable=True)),
    "fused": training(optimizer=adam({0: slot(4, 3, device="cuda:0")}, fused=True)),
    "accumulated": training(optimizer=adam({0: slot(4, 3) | {"step": 1}}), global_step=400),
    "two steps a batch": training(optimizer=adam({0: slot(4, 3) | {"step": 6}})),
    "frozen": training(optimizer=adam({0: slot(4)})),
    "scaler off": training(scaler={}),
    "bfloat16 throughout": {
        "model": {"w": T((4, 3), "bfloat16")}, "optimizer": adam({0: slot(4, 3, dtype="bfloat16")})
    },
    "average of parameters only": {
        "model": {**MODEL, "bn.running_mean": T((4,))}, "ema": {**MODEL, "decay": 0.9}
    },
    "apart on purpose": {"state_dict": TIED, "config": {"tie_word_embeddings": False}},
    "no word of tying": {"state_dict": TIED},
    "tied": {
        "state_dict": {"lm_head.weight": T((8, 4), tie="e"), "wte.weight": T((8, 4), tie="e")},
        "config": {"tie_word_embeddings": True},
    },
    "head first": training(optimizer=adam({0: slot(4), 1: slot(4, 3)})),
    "an attention bias that is learned": {"attn.bias": T((4,)), "attn.weight": T()},
    "flat shards": training(optimizer=adam({"fc.weight": slot(12), "fc.bias": slot(4)})),
    "projected": training(optimizer=adam({0: slot(2, 3) | {"projector": {"rank": 2}}, 1: slot(4)}, **NAMES)),
    "a little waste": {"w": T((4, 3), spare=60_000)},
    "one cycle": training(
        scheduler={"last_epoch": 3, "base_lrs": [0.004], "_last_lr": [0.1], "_schedule_phases": []}
    ),
    "two schedules, one optimizer": training(
        scheduler=[{"last_epoch": 1, "_last_lr": [0.5]}, {"last_epoch": 1, "_last_lr": [0.1]}]
    ),
}  # fmt: skip


def warned(checkpoint: Checkpoint, measures: Measures | None = None) -> Iterator[str]:
    context = Context(checkpoint, lay_out(checkpoint), measures)
    for rule in MINE:
        if rule.severity != "info" and rule.judge is not None:
            yield from (f"{rule.code} {d.where}: {d.message}" for d in rule.judge(context))


@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_healthy_is_warned_of(name: str) -> None:
    assert list(warned(checkpoint_of(HEALTHY[name]))) == []


DEFECTIVE = {"ema_alias.pth"}


def test_no_fixture_is_warned_of_but_the_one_made_for_it(fixtures_dir: Path) -> None:
    suffixes = {".pth", ".pt", ".ckpt", ".tar", ".safetensors", ".bin", ".pkl"}
    files = [p for p in sorted(fixtures_dir.rglob("*")) if p.suffix in suffixes and "damaged" not in p.parts]
    folders = [fixtures_dir / name for name in ("trainer/checkpoint-2", "accelerate", "sharded")]
    noisy = {str(p.relative_to(fixtures_dir)): w for p in [*files, *folders] if (w := list(warned(describe(p))))}
    assert noisy.keys() == DEFECTIVE


def test_steps_kept_as_tensors_are_read_from_their_measures() -> None:
    checkpoint = checkpoint_of(training())
    scalars = {i: n for i, n in enumerate(checkpoint.nodes) if isinstance(n, Tensor) and n.shape == ()}
    steps = [i for i, node in scalars.items() if node.dtype.name == "float32"]
    ahead = Measures(tensors={i: TensorMeasure(1, abs_max=5000.0, abs_min=5000.0) for i in steps})
    together = Measures(tensors={i: TensorMeasure(1, abs_max=3.0, abs_min=3.0) for i in steps})
    assert found(checkpoint, "step-mismatch", ahead)[0].facts == {"optimizer": 5000.0, "counter": 3}
    assert found(checkpoint, "step-mismatch", together) == []
    assert found(checkpoint, "step-mismatch") == []  # content was not measured: nothing is known


def test_a_storage_that_no_tensor_uses() -> None:
    checkpoint = checkpoint_of(MODEL)
    spare = Storage("9", checkpoint.storages[0].dtype, 64, record="archive/data/9")
    more = Checkpoint("x", "torch-zip", checkpoint.nodes, checkpoint.root, (*checkpoint.storages, spare))
    assert [d.facts["bytes"] for d in found(more, "unreachable-storage")] == [64]
    assert found(checkpoint, "unreachable-storage") == []
    blind = Checkpoint("x", "torch-zip", more.nodes, more.root, more.storages, damage=(Damage("truncated", "", ""),))
    assert found(blind, "unreachable-storage") == []


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("resnet50-0676ba61.pth", True),
        ("dir/resnet18-f37072fd.pth.tar", True),
        ("run-20241105.pth", False),
        ("epoch-12.pth", False),
        ("deadbeef.pth", False),
    ],
)
def test_hashes_in_names(name: str, wanted: bool) -> None:
    assert wanted_digests(Checkpoint(name, "torch-zip")) == ((name,) if wanted else ())


def test_a_hash_in_the_name_is_held_against_the_content() -> None:
    checkpoint = Checkpoint("net-0676ba61.pth", "torch-zip")
    right = Measures(digests={checkpoint.source: "0676ba61" + "0" * 56})
    wrong = Measures(digests={checkpoint.source: "f" * 64})
    assert found(checkpoint, "file-name-hash", right) == []
    assert found(checkpoint, "file-name-hash") == []
    assert [d.facts["needs"] for d in found(checkpoint, "file-name-hash", wrong)] == ["0676ba61"]


def test_wrappers_count_by_whole_segments_on_every_key() -> None:
    assert wrappers_of(["_orig_mod.module.a.weight", "module._orig_mod.b"]) == ("_orig_mod", "module")
    assert wrappers_of(["module.a", "b"]) == ()
    assert wrappers_of(["text_module.a"]) == ()
    assert wrappers_of(["module"]) == ()


@pytest.mark.parametrize(
    ("files", "fires"),
    [
        (("model.safetensors", "optimizer.pt", "scheduler.pt", "training_args.bin"), True),
        (("model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json"), False),
        (("model.safetensors", "optimizer.bin", "scheduler.bin"), True),
        (("model.safetensors", "optimizer.bin", "scheduler.bin", "random_states_0.pkl"), False),
        (("__0_0.distcp", ".metadata.tmp"), True),
        (("model.safetensors", "config.json"), False),
    ],
)
def test_unfinished_directories(files: tuple[str, ...], fires: bool) -> None:
    damage = found({"model.safetensors": MODEL}, "unfinished-save", format="directory", files=files)
    assert bool(damage) is fires


def test_names_from_the_file_are_escaped() -> None:
    message = found(training(optimizer=adam({0: slot(4), "\x1b[31m": slot(4)}, [0])), "orphan-state")[0].message
    assert "\x1b" not in message


def test_odd_trees_raise_nowhere() -> None:
    odd = [
        {"optimizer": {"state": {0: None}, "param_groups": [None, {"params": 3}]}, "scheduler": [1, {}], "scaler": {}},
        {"model": {"w": T(())}, "ema": {"w": 3}, "rng": {"torch": T((5056,), "uint8")}},
        None,
    ]
    for value in odd:
        list(warned(checkpoint_of(value)))


def test_every_rule_of_these_families_has_a_fault_here() -> None:
    elsewhere = {"unreachable-storage", "file-name-hash", "unfinished-save"}
    assert {rule.name for rule in MINE} == {name for name, _ in FAULTS} | elsewhere
