"""What torch itself writes: wrapped and sharded models, averages, every optimizer and schedule, programs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ckpttool import describe
from ckpttool.profiles import lay_out

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "ASGD": {},
    "Adadelta": {},
    "Adafactor": {},
    "Adagrad": {},
    "Adam": {"amsgrad": True},
    "AdamW": {},
    "Adamax": {},
    "LBFGS": {},
    "Muon": {},
    "NAdam": {},
    "RAdam": {},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "Rprop": {},
    "SGD": {"momentum": 0.9},
    "SparseAdam": {},
}
"""Every optimizer of torch, with the options that add state."""

SCHEDULES: dict[str, Callable[[Any, Any], Any]] = {
    "ChainedScheduler": lambda s, o: s.ChainedScheduler([s.ConstantLR(o), s.ExponentialLR(o, 0.9)]),
    "ConstantLR": lambda s, o: s.ConstantLR(o),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, 9),
    "CosineAnnealingWarmRestarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 3),
    "CyclicLR": lambda s, o: s.CyclicLR(o, 0.01, 0.1),
    "ExponentialLR": lambda s, o: s.ExponentialLR(o, 0.9),
    "LambdaLR": lambda s, o: s.LambdaLR(o, lambda step: 0.9**step),
    "LinearLR": lambda s, o: s.LinearLR(o),
    "MultiStepLR": lambda s, o: s.MultiStepLR(o, [1, 4]),
    "MultiplicativeLR": lambda s, o: s.MultiplicativeLR(o, lambda step: 0.9),
    "OneCycleLR": lambda s, o: s.OneCycleLR(o, 0.1, total_steps=9),
    "PolynomialLR": lambda s, o: s.PolynomialLR(o, 9),
    "ReduceLROnPlateau": lambda s, o: s.ReduceLROnPlateau(o, patience=0),
    "SequentialLR": lambda s, o: s.SequentialLR(o, [s.LinearLR(o), s.StepLR(o, 2)], milestones=[1]),
    "StepLR": lambda s, o: s.StepLR(o, 1),
}


@pytest.fixture
def save(torch: Any, tmp_path: Path) -> Callable[[Any], Path]:
    def write(state: Any) -> Path:
        path = tmp_path / "x.pt"
        torch.save(state, path)
        return path

    return write


@pytest.fixture(scope="module")
def group(torch: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A process group of this process alone."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_gloo_available()):
        pytest.skip("this torch has no gloo")
    store = distributed.FileStore(str(tmp_path_factory.mktemp("store") / "file"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1, timeout=timedelta(seconds=60))
    yield
    distributed.destroy_process_group()


# --- wrapped models ----------------------------------------------------------------------------------------


def wrapped_in(found: dict[str, Any]) -> list[str]:
    """The segments that ``wrapper-prefix`` speaks of."""
    (finding,) = (f for f in found["findings"] if f["name"] == "wrapper-prefix")
    return list(finding["facts"]["segments"])


def test_ddp(group: None, torch: Any, network: Any, step: Any, save: Any, same: Any, judged: Any) -> None:
    model = torch.nn.parallel.DistributedDataParallel(network)
    optimizer = torch.optim.AdamW(model.parameters())
    step(model, optimizer)
    path = save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 1})
    same(path, torch.load(path))
    found = judged(path, require="resumable")
    assert (found["verdict"], found["exit_code"]) == ("resumable", 0)
    assert wrapped_in(found) == ["module"]
    assert [slot.name for slot in lay_out(describe(path)).optimizers[0].slots] == [
        name for name, _ in model.named_parameters()
    ]


def test_a_compiled_model(torch: Any, network: Any, save: Any, same: Any, judged: Any) -> None:
    path = save(torch.compile(network).state_dict())
    same(path, torch.load(path))
    assert wrapped_in(judged(path)) == ["_orig_mod"]


def test_a_compiled_model_in_ddp(group: None, torch: Any, network: Any, save: Any, judged: Any) -> None:
    path = save(torch.nn.parallel.DistributedDataParallel(torch.compile(network)).state_dict())
    assert wrapped_in(judged(path)) == ["module", "_orig_mod"]


@pytest.mark.parametrize("segment", ["_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_what_fsdp_and_activation_checkpointing_leave_in_names(
    segment: str, network: Any, save: Any, judged: Any
) -> None:
    path = save({f"{segment}.{key}": tensor for key, tensor in network.state_dict().items()})
    assert wrapped_in(judged(path)) == [segment]


def test_a_bare_model_wears_nothing(network: Any, save: Any, judged: Any) -> None:
    found = judged(save(network.state_dict()))
    assert "wrapper-prefix" not in found["names"]
    assert found["parameters"] == sum(p.numel() for p in network.parameters())


# --- distributed tensors -----------------------------------------------------------------------------------


def test_fully_sharded_weights(group: None, torch: Any, network: Any, step: Any, save: Any, judged: Any) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    fully_shard(network, mesh=init_device_mesh("cpu", (1,)))
    optimizer = torch.optim.AdamW(network.parameters())
    step(network, optimizer)
    state = {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "step": 1}
    path = save(state)
    found = judged(path, require="resumable")
    assert (found["verdict"], found["safety"], found["integrity"]) == ("resumable", "plain", "proved")
    kept = {e.path: t for e, t in describe(path).tensors()}
    loaded = torch.load(path)["model"]
    assert loaded.keys() == state["model"].keys()
    for key, tensor in loaded.items():
        node = next(t for p, t in kept.items() if p[:2] == ("model", key))
        assert (node.shape, f"torch.{node.dtype.name}") == (tuple(tensor.shape), str(tensor.dtype))


def test_a_distributed_tensor_holds_its_local_one(
    group: None, torch: Any, framework: Any, save: Any, judged: Any
) -> None:
    spread = framework("torch.distributed.tensor")
    mesh = framework("torch.distributed.device_mesh").init_device_mesh("cpu", (1,))
    whole = torch.arange(12.0).reshape(4, 3)
    path = save({"w": spread.distribute_tensor(whole, mesh, [spread.Shard(0)])})
    assert torch.equal(torch.load(path)["w"].to_local(), whole)
    checkpoint = describe(path)
    spans = [s.span for s in checkpoint.storages if s.span is not None and s.nbytes == 48]
    data = path.read_bytes()
    assert [data[s.start : s.stop] for s in spans] == [whole.numpy().tobytes()]
    assert judged(path)["safety"] == "plain"


# --- averages, optimizers, schedules -----------------------------------------------------------------------


def test_an_average_beside_the_weights(torch: Any, network: Any, step: Any, save: Any, same: Any, judged: Any) -> None:
    average = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        step(network, optimizer)
        average.update_parameters(network)
    parts = {"model": network, "model_ema": average, "optimizer": optimizer}
    path = save({name: part.state_dict() for name, part in parts.items()} | {"epoch": 2})
    same(path, torch.load(path))
    assert {"ema", "weights", "optimizer", "counter"} <= set(lay_out(describe(path)).readiness.has)
    found = judged(path, require="resumable")
    assert (found["verdict"], found["exit_code"], found["names"]) == ("resumable", 0, {"not-exact"})
    assert found["parameters"] == sum(p.numel() for p in network.parameters())


def test_the_optimizers_here_are_all_that_torch_has(torch: Any) -> None:
    optim = torch.optim
    kinds = [c for c in vars(optim).values() if inspect.isclass(c) and issubclass(c, optim.Optimizer)]
    assert {c.__name__ for c in kinds} - {"Optimizer"} == OPTIMIZERS.keys()
    base = optim.lr_scheduler.LRScheduler
    kinds = [c for c in vars(optim.lr_scheduler).values() if inspect.isclass(c) and issubclass(c, base)]
    assert {c.__name__ for c in kinds} - {"LRScheduler", "_LRScheduler"} == SCHEDULES.keys()


def model_for(torch: Any, kind: str) -> Any:
    """A model that this optimizer can train: Muon takes matrices alone, SparseAdam sparse gradients."""
    nn = torch.nn
    if kind == "SparseAdam":
        return nn.Sequential(nn.Embedding(5, 4, sparse=True))
    return nn.Sequential(nn.Linear(6, 5, bias=kind != "Muon"), nn.Linear(5, 3, bias=kind != "Muon"))


@pytest.mark.parametrize(
    ("kind", "named"), [*((kind, False) for kind in OPTIMIZERS), *((k, True) for k in OPTIMIZERS if k != "LBFGS")]
)  # LBFGS takes no names
def test_every_optimizer(kind: str, named: bool, torch: Any, save: Any, same: Any, judged: Any) -> None:
    model = model_for(torch, kind)
    listed = model.named_parameters() if named else model.parameters()
    optimizer = getattr(torch.optim, kind)(listed, **OPTIMIZERS[kind])
    rows = torch.arange(4) if kind == "SparseAdam" else torch.ones(4, 6)

    def loss() -> Any:
        optimizer.zero_grad()
        found = model(rows).square().mean()
        found.backward()
        return found

    optimizer.step(loss)
    path = save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 1})
    same(path, torch.load(path))
    found = judged(path, require="resumable", fail_on="warning")
    assert (found["verdict"], found["integrity"], found["exit_code"]) == ("resumable", "proved", 0), found
    (layout,) = lay_out(describe(path)).optimizers
    assert layout.kind == kind
    names = [name for name, _ in model.named_parameters()]
    assert len(layout.slots) == len(names)
    if named:
        assert layout.named == "param_names"
    if kind != "LBFGS":  # its one state is that of all parameters together
        assert [slot.name for slot in layout.slots] == names
        kept = [set(state) for state in optimizer.state_dict()["state"].values()]
        assert [{moment for moment, _ in slot.state} for slot in layout.slots] == kept


@pytest.mark.parametrize("kind", SCHEDULES)
def test_every_schedule(kind: str, torch: Any, network: Any, step: Any, save: Any, same: Any, judged: Any) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    schedule = SCHEDULES[kind](torch.optim.lr_scheduler, optimizer)
    for _ in range(3):
        step(network, optimizer)
        schedule.step(*([1.0] if kind == "ReduceLROnPlateau" else []))
    parts = {"model": network, "optimizer": optimizer, "scheduler": schedule}
    path = save({name: part.state_dict() for name, part in parts.items()} | {"epoch": 3})
    same(path, torch.load(path, weights_only=False))
    assert "scheduler" in lay_out(describe(path)).readiness.has
    found = judged(path, require="resumable", fail_on="warning")
    assert (found["verdict"], found["exit_code"]) == ("resumable", 0), found["findings"]


# --- programs ----------------------------------------------------------------------------------------------


def test_a_script_is_weights_and_code(torch: Any, network: Any, as_content: Any, judged: Any, tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.script(network.eval()), path)
    found = judged(path, require="weights")
    assert (found["format"], found["safety"], found["exit_code"]) == ("torchscript", "needs-code", 0)
    assert "contains-code" in found["names"]
    checkpoint = describe(path)
    data = path.read_bytes()
    kept = set()
    for _, tensor in checkpoint.tensors():
        assert tensor.storage is not None
        span: Any = checkpoint.storages[tensor.storage].span
        kept.add((tensor.dtype.name, tensor.shape, data[span.start : span.stop]))
    loaded = torch.jit.load(path).state_dict()
    assert set(as_content(loaded).values()) <= kept


def test_an_exported_program_is_told_apart(torch: Any, network: Any, judged: Any, tmp_path: Path) -> None:
    path = tmp_path / "program.pt2"
    torch.export.save(torch.export.export(network.eval(), (torch.ones(2, 6),)), path)
    found = judged(path)
    assert (found["verdict"], found["names"]) == ("not-a-checkpoint", {"not-a-checkpoint"})
    assert "torch.export" in found["findings"][0]["message"]
