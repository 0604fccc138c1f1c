"""What torch itself renamed or wraps around: parametrizations, attention, wrappers, averages, pruning."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]


def square(model: Any, number: int) -> Any:
    """A loss that every parameter has a part in."""
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(number))
    return model(x).square().mean()


def adamw(model: Any) -> Any:
    return torch.optim.AdamW(model.parameters(), lr=1e-2)


def saved_after(model: Any, train: Any, path: Path, steps: int = 3) -> Path:
    """Train, then save weights and optimizer."""
    optimizer = adamw(model)
    train(model, optimizer, square, range(steps))
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    return path


def continued(model: Any, path: Path, train: Any, key: str = "model") -> list[float]:
    """Load strictly, and go on for two steps: the losses."""
    loaded = torch.load(path, weights_only=True)
    model.load_state_dict(loaded[key], strict=True)
    optimizer = adamw(model)
    optimizer.load_state_dict(loaded["optimizer"])
    return train(model, optimizer, square, range(3, 5))


# --- weight norm and spectral norm ---------------------------------------------------------------------


def normed(weight_norm: Callable[..., Any], spectral_norm: Callable[..., Any]) -> Any:
    """Both norms in one model, and a name that only begins like one of theirs."""
    torch.manual_seed(5)
    model = nn.Sequential(
        weight_norm(nn.Linear(6, 5)), nn.Tanh(), spectral_norm(nn.Linear(5, 4)), nn.Tanh(), nn.Linear(4, 3)
    )
    model[4].register_parameter("weight_gates", nn.Parameter(torch.ones(2)))
    return model


def old_norms() -> Any:
    return normed(nn.utils.weight_norm, nn.utils.spectral_norm)


def new_norms() -> Any:
    return normed(nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm)


def test_both_norms_reach_their_parametrizations(train: Any, migrate: Any, equal: Any, tmp_path: Path) -> None:
    """In either order; where both are in a model, neither preset takes the other's weight_v."""
    path = saved_after(old_norms(), train, tmp_path / "old.pt")
    one = migrate(migrate(path, "weight-norm-to-parametrizations"), "spectral-norm-to-parametrizations")
    other = migrate(migrate(path, "spectral-norm-to-parametrizations"), "weight-norm-to-parametrizations")
    assert torch.load(one)["model"].keys() == torch.load(other)["model"].keys()
    assert "4.weight_gates" in torch.load(one)["model"]
    new_norms().load_state_dict(torch.load(one, weights_only=True)["model"], strict=True)


def test_both_norms_come_back_bit_for_bit(train: Any, migrate: Any, equal: Any, tmp_path: Path) -> None:
    path = saved_after(old_norms(), train, tmp_path / "old.pt")
    for preset in ("weight-norm-to-parametrizations", "spectral-norm-to-parametrizations"):
        made = migrate(path, preset)
        assert torch.load(made)["model"].keys() != torch.load(path)["model"].keys()
        assert equal(torch.load(migrate(made, preset, "--reverse")), torch.load(path))


def pair(kind: str) -> tuple[Any, Any]:
    """A model with the old norm, and one with the new one."""
    torch.manual_seed(5)
    old, new = (getattr(where, f"{kind}_norm") for where in (nn.utils, nn.utils.parametrizations))
    return tuple(nn.Sequential(norm(nn.Linear(6, 5)), nn.Linear(5, 3)) for norm in (old, new))


@pytest.mark.parametrize(("kind", "close"), [("weight", 1e-5), ("spectral", 1e-2)])
def test_a_norm_trains_on_as_a_parametrization(
    train: Any, migrate: Any, tmp_path: Path, kind: str, close: float
) -> None:
    """Parameters stand in another order (the bias before the parametrized weight), so the target's is asked for.

    The two spectral norms take the halves of their power iteration in another order: as soon as they train, their
    estimates differ until they have converged.
    """
    old, new = pair(kind)
    path = saved_after(old, train, tmp_path / "old.pt")
    torch.save(new.state_dict(), tmp_path / "target.pt")
    made = migrate(path, f"{kind}-norm-to-parametrizations", "--to", str(tmp_path / "target.pt"))
    new.load_state_dict(torch.load(made, weights_only=True)["model"], strict=True)
    x = torch.randn(4, 6)
    torch.testing.assert_close(new.eval()(x), old.eval()(x), rtol=1e-5, atol=1e-6)
    assert continued(new, made, train) == pytest.approx(continued(old, path, train), rel=close)


# --- attention -----------------------------------------------------------------------------------------


class SplitAttention(nn.Module):
    """fairseq's multi-head attention: three projections, and the arithmetic of torch's fused one."""

    def __init__(self, width: int = 6, heads: int = 2) -> None:
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.heads = heads

    def forward(self, x: Any) -> Any:
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(0, 1) for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        found = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out_proj(found.transpose(0, 1).flatten(1))


class FusedAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(6, 2)

    def forward(self, x: Any) -> Any:
        return self.attn(x, x, x, need_weights=False)[0]


class Apart(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = SplitAttention()

    def forward(self, x: Any) -> Any:
        return self.attn(x)


def attentions() -> tuple[Any, Any]:
    torch.manual_seed(3)
    fused, apart = FusedAttention(), Apart()
    nn.init.normal_(fused.attn.in_proj_bias)
    return fused, apart


def test_attention_is_split_with_its_moments(train: Any, migrate: Any, tmp_path: Path) -> None:
    fused, apart = attentions()
    path = saved_after(fused, train, tmp_path / "fused.pt")
    torch.save(apart.state_dict(), tmp_path / "target.pt")
    made = migrate(path, "mha-split", "--to", str(tmp_path / "target.pt"))
    assert continued(apart, made, train) == pytest.approx(continued(fused, path, train), rel=1e-5)


def test_attention_is_fused_with_its_moments(train: Any, migrate: Any, tmp_path: Path) -> None:
    fused, apart = attentions()
    path = saved_after(apart, train, tmp_path / "apart.pt")
    torch.save(fused.state_dict(), tmp_path / "target.pt")
    made = migrate(path, "mha-fuse", "--to", str(tmp_path / "target.pt"))
    assert continued(fused, made, train) == pytest.approx(continued(apart, path, train), rel=1e-5)


def test_splitting_and_fusing_undo_each_other(train: Any, migrate: Any, equal: Any, tmp_path: Path) -> None:
    fused, _ = attentions()
    path = saved_after(fused, train, tmp_path / "fused.pt")
    made = migrate(path, "mha-split")
    assert equal(torch.load(migrate(made, "mha-split", "--reverse")), torch.load(path))
    assert equal(torch.load(migrate(made, "mha-fuse")), torch.load(path))


def test_attention_of_other_key_sizes_is_split(migrate: Any, equal: Any, tmp_path: Path) -> None:
    fused = nn.ModuleDict({"attn": nn.MultiheadAttention(6, 2, kdim=5, vdim=4)})
    nn.init.normal_(fused["attn"].in_proj_bias)
    torch.save(fused.state_dict(), tmp_path / "fused.pt")
    made = migrate(tmp_path / "fused.pt", "mha-kdim-split")
    apart = nn.ModuleDict({"attn": SplitAttention()})
    apart["attn"].k_proj, apart["attn"].v_proj = nn.Linear(5, 6), nn.Linear(4, 6)
    apart.load_state_dict(torch.load(made, weights_only=True), strict=True)
    assert torch.equal(apart["attn"].v_proj.bias, fused["attn"].in_proj_bias[12:])
    back = torch.load(migrate(made, "mha-kdim-split", "--reverse"))
    assert back.keys() == fused.state_dict().keys()
    assert all(equal(back[key], value) for key, value in fused.state_dict().items())


# --- wrappers ------------------------------------------------------------------------------------------


def network() -> Any:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Sequential(nn.Linear(5, 4), nn.Tanh()), nn.Linear(4, 3))


def parallel(model: Any) -> Any:
    return nn.DataParallel(model)


def compiled(model: Any) -> Any:
    return torch.compile(model, backend="eager")


def checkpointed(model: Any) -> Any:
    """Its own hooks take its name out of a state dict; what saves around them leaves it in."""
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model[2] = checkpoint_wrapper(model[2])
    return model


def named(model: Any) -> dict[str, Any]:
    """The state dict under the names that parameters have."""
    return {name: value.detach() for name, value in model.named_parameters()}


STACKS = [
    (parallel,),
    (compiled,),
    (checkpointed,),
    (parallel, compiled),
    (compiled, parallel),
    (checkpointed, compiled, parallel),
    (checkpointed, parallel, parallel, compiled),
]


@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: "-".join(wrap.__name__ for wrap in stack))
def test_wrappers_come_off_in_any_order(migrate: Any, equal: Any, tmp_path: Path, stack: Any) -> None:
    model = network()
    expected = named(model)
    for wrap in stack:
        model = wrap(model)
    torch.save(named(model), tmp_path / "wrapped.pt")
    assert named(model).keys() != expected.keys()
    made = migrate(tmp_path / "wrapped.pt", "strip-wrappers")
    assert equal(torch.load(made), expected)
    network().load_state_dict(torch.load(made, weights_only=True), strict=True)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of this process."""
    distributed = torch.distributed
    if distributed.is_initialized():
        pytest.skip("a process group is there already")
    store = f"file://{tmp_path / 'store'}"
    distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_ddp_comes_off_with_the_optimizer(train: Any, migrate: Any, equal: Any, tmp_path: Path) -> None:
    """And is put on again."""
    model = nn.parallel.DistributedDataParallel(network())
    path = saved_after(model, train, tmp_path / "ddp.pt")
    assert all(name.startswith("module.") for name in torch.load(path)["model"])
    made = migrate(path, "strip-wrappers")
    assert continued(network(), made, train) == continued(model, path, train)
    assert equal(torch.load(migrate(made, "wrap-ddp")), torch.load(path))


@pytest.mark.usefixtures("alone")
def test_fsdp_comes_off_at_any_depth(migrate: Any, equal: Any, tmp_path: Path) -> None:
    """The names that FSDP's modules have while it holds them, one inside the other."""
    fsdp = importlib.import_module("torch.distributed.fsdp").FullyShardedDataParallel
    settings = {"use_orig_params": True, "device_id": torch.device("cpu")}
    model = network()
    model[2] = fsdp(model[2], **settings)
    wrapped = named(compiled(parallel(fsdp(model, **settings))))
    wrapped = {name: value.clone() for name, value in wrapped.items()}
    inner = "_orig_mod.module._fsdp_wrapped_module.2._fsdp_wrapped_module.0.weight"
    assert inner in wrapped
    torch.save(wrapped, tmp_path / "fsdp.pt")
    assert equal(torch.load(migrate(tmp_path / "fsdp.pt", "strip-wrappers")), named(network()))


def test_a_name_that_only_ends_like_a_wrapper_stays(migrate: Any, equal: Any, tmp_path: Path) -> None:
    state = {"text_module.fc.weight": torch.ones(2), "module_list.0.weight": torch.ones(3)}
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "own.pt")
    assert equal(torch.load(migrate(tmp_path / "own.pt", "strip-wrappers")), state)


# --- batch norm ----------------------------------------------------------------------------------------


def test_batch_norms_of_old_load_strictly(migrate: Any, tmp_path: Path) -> None:
    """num_batches_tracked came with torch 0.4.1; SyncBatchNorm has the same keys."""
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 4), nn.BatchNorm1d(4))
    old = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pt")
    made = torch.load(migrate(tmp_path / "old.pt", "syncbn"), weights_only=True)
    assert list(made) == list(model.state_dict())
    nn.SyncBatchNorm.convert_sync_batchnorm(model).load_state_dict(made, strict=True)
    assert made["1.num_batches_tracked"].dtype == torch.int64
    assert made["1.num_batches_tracked"].shape == ()


def test_batch_norms_of_today_stay(migrate: Any, equal: Any, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5))
    torch.save(dict(model.state_dict()), tmp_path / "new.pt")
    assert equal(torch.load(migrate(tmp_path / "new.pt", "syncbn")), dict(model.state_dict()))


# --- averages, pruning ---------------------------------------------------------------------------------


def test_the_average_of_torch_is_had_out(train: Any, migrate: Any, equal: Any, tmp_path: Path) -> None:
    swa = torch.optim.swa_utils
    model = network()
    average = swa.AveragedModel(model, multi_avg_fn=swa.get_ema_multi_avg_fn(0.9))
    optimizer = adamw(model)
    for number in range(3):
        train(model, optimizer, square, range(number, number + 1))
        average.update_parameters(model)
    torch.save(average.state_dict(), tmp_path / "average.pt")
    made = migrate(tmp_path / "average.pt", "ema-extract-averaged-model")
    fresh = network()
    fresh.load_state_dict(torch.load(made, weights_only=True), strict=True)
    assert equal(named(fresh), named(average.module))


def test_pruning_is_folded_as_torch_folds_it(migrate: Any, equal: Any, tmp_path: Path) -> None:
    prune = importlib.import_module("torch.nn.utils.prune")
    model = network()
    for module in (model[0], model[3]):
        prune.l1_unstructured(module, "weight", amount=0.4)
    torch.save(model.state_dict(), tmp_path / "pruned.pt")
    made = torch.load(migrate(tmp_path / "pruned.pt", "prune-fold"), weights_only=True)
    for module in (model[0], model[3]):
        prune.remove(module, "weight")
    expected = model.state_dict()
    assert made.keys() == expected.keys()
    assert all(equal(made[key], expected[key]) for key in made)


def test_weight_norm_is_folded_as_torch_folds_it(migrate: Any, tmp_path: Path) -> None:
    """Within two units in the last place: a norm is a sum, and its order is not told."""
    model = nn.Sequential(nn.utils.weight_norm(nn.Linear(6, 5)), nn.utils.weight_norm(nn.Conv1d(5, 4, 3)))
    torch.save(model.state_dict(), tmp_path / "normed.pt")
    made = torch.load(migrate(tmp_path / "normed.pt", "weight-norm-fold"), weights_only=True)
    for module in model:
        nn.utils.remove_weight_norm(module)
    expected = model.state_dict()
    assert made.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(made[key], value, rtol=2.4e-7, atol=0.0)
