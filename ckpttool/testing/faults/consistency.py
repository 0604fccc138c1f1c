"""Parts of a training state that no longer belong together, or are missing: the file itself is whole."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

from ckpttool.testing.edit import edited, walk
from ckpttool.testing.faults.registry import Inapplicable, add
from ckpttool.testing.plain import Parameter, Storage, Tensor, tensor

TORCH = ("torch-zip", "torch-legacy")
State = dict[Any, Any]


# --- finding the parts -----------------------------------------------------------------------------------


def _dicts(value: Any, *keys: str) -> list[State]:
    return [item for _, item in walk(value) if isinstance(item, dict) and all(key in item for key in keys)]


def part(value: Any, what: str, *keys: str) -> State:
    """The first dict below that has all these keys."""
    found = _dicts(value, *keys)
    if not found:
        raise Inapplicable(f"the file holds no {what}")
    return found[0]


def optimizer(value: Any) -> State:
    """The first optimizer's state dict, one that has state."""
    found = part(value, "optimizer", "state", "param_groups")
    if not found["state"]:
        raise Inapplicable("the optimizer has no state")
    return found


def model(value: Any) -> State:
    """The first state dict: a dict of tensors only, under a key that weights have."""
    for path, item in walk(value):
        named = not path or path[-1] in ("model", "state_dict", "model_state_dict", "weights", "module")
        if named and isinstance(item, dict) and item and all(map(_is_tensor, item.values())):
            return item
    raise Inapplicable("the file holds no state dict")


def average(value: Any) -> State:
    """The state dict of the weights' moving average."""
    for path, item in walk(value):
        inside = any("ema" in str(step).lower() for step in path)
        if inside and isinstance(item, dict) and item and all(map(_is_tensor, item.values())):
            return item
    raise Inapplicable("the file holds no moving average")


def _is_tensor(value: Any) -> bool:
    return isinstance(value, (Tensor, Parameter))


def _plain(value: Any) -> Tensor:
    return value.data if isinstance(value, Parameter) else value


def _moments(value: Any) -> list[State]:
    """The states of parameters that have a moment of their own shape."""
    found = [s for s in optimizer(value)["state"].values() if isinstance(s, dict) and "exp_avg" in s]
    if not found:
        raise Inapplicable("the optimizer has no exp_avg")
    return found


def _change(name: str, rule: str, about: str, change: Callable[[Any], Any]) -> None:
    def apply(data: bytes, rng: random.Random) -> bytes:
        return edited(data, change)

    add(name, rule, TORCH, about, apply)


# --- optimizer -------------------------------------------------------------------------------------------


def _doubled_parameter(value: Any) -> None:
    group = optimizer(value)["param_groups"][0]
    for name in ("params", "param_names"):
        if name in group:
            group[name].append(group[name][0])


def _shuffled(value: Any) -> None:
    """The states of two parameters of different shapes change places."""
    state = optimizer(value)["state"]
    keys = [k for k, s in state.items() if isinstance(s, dict) and "exp_avg" in s]
    first = keys[0]
    other = next((k for k in keys if state[k]["exp_avg"].shape != state[first]["exp_avg"].shape), None)
    if other is None:
        raise Inapplicable("all parameters have one shape")
    state[first], state[other] = state[other], state[first]


def _cut_moment(value: Any) -> None:
    moment = max(_moments(value), key=lambda s: len(s["exp_avg"].storage.data))["exp_avg"]
    moment.shape = (*moment.shape[:-1], moment.shape[-1] - 1)


def _half(found: Tensor, dtype: str) -> Tensor:
    floats = struct.unpack(f"<{len(found.storage.data) // 4}f", found.storage.data)
    packed = struct.pack(f"<{len(floats)}e", *floats)
    return Tensor(tensor((len(floats),), packed, dtype).storage, found.shape, found.stride)


def _half_moments(value: Any) -> None:
    for state in _moments(value):
        for name in ("exp_avg", "exp_avg_sq"):
            state[name] = _half(state[name], "float16")


def _double_moments(value: Any) -> None:
    state = _moments(value)[0]
    moment = state["exp_avg"]
    floats = struct.unpack(f"<{len(moment.storage.data) // 4}f", moment.storage.data)
    state["exp_avg"] = tensor(moment.shape, struct.pack(f"<{len(floats)}d", *floats), "float64")


def _orphan(value: Any) -> None:
    state = optimizer(value)["state"]
    state[99] = next(iter(state.values()))


def _renamed_parameters(value: Any) -> None:
    group = optimizer(value)["param_groups"][0]
    if "param_names" not in group:
        raise Inapplicable("the optimizer has no parameter names")
    group["param_names"] = group["param_names"][::-1]


def _far_ahead(value: Any) -> None:
    for state in _moments(value):
        state["step"] = tensor((), struct.pack("<f", 3e6)) if isinstance(state["step"], Tensor) else 3_000_000


_change("doubled-parameter", "group-size-mismatch", "a parameter stands in the groups twice", _doubled_parameter)
_change("shuffled-state", "moment-shape", "two parameters have each other's optimizer state", _shuffled)
_change("cut-moment", "moment-shape", "a moment has another shape than its parameter", _cut_moment)
_change(
    "half-moments",
    "half-precision-moments",
    "the moments were cast to float16 together with the weights",
    _half_moments,
)
_change("double-moment", "moment-dtype", "one moment is wider than its parameter", _double_moments)
_change("orphan-state", "orphan-state", "state of a parameter that no group lists", _orphan)
_change(
    "renamed-parameters",
    "optimizer-order",
    "the optimizer's names are in another order than the model's",
    _renamed_parameters,
)
_change("old-counter", "step-mismatch", "the counter is of an earlier step than the optimizer", _far_ahead)


# --- schedule, scaler, average -----------------------------------------------------------------------------


def _schedule(**fields: Any) -> Callable[[Any], None]:
    return lambda value: part(value, "scheduler", "_last_lr", "last_epoch").update(fields)


def _base_rate(value: Any) -> None:
    found = part(value, "scheduler with base rates", "base_lrs", "last_epoch")
    found["base_lrs"] = [rate * 10 for rate in found["base_lrs"]]


def _zero_scale(value: Any) -> None:
    part(value, "scaler", "scale", "growth_factor")["scale"] = 0.0


def _lost_average(value: Any) -> None:
    found = average(value)
    found["renamed.weight"] = found.pop(next(iter(found)))


_change("stale-rate", "scheduler-lr", "the schedule's last rate is not the optimizer's", _schedule(_last_lr=[0.5]))
_change("other-base-rate", "base-lr", "the schedule starts from another rate than the optimizer", _base_rate)
_change("zero-scale", "scaler-state", "the loss scale fell to zero", _zero_scale)
_change("other-average", "ema-mismatch", "the moving average knows a weight by another name", _lost_average)


# --- weights -----------------------------------------------------------------------------------------------


def _emptied(value: Any) -> None:
    for name, found in list(model(value).items()):
        model_entry = _plain(found)
        model(value)[name] = tensor((0,), b"", model_entry.kind.name)


def _untied(value: Any) -> None:
    state = model(value)
    matrix = max((_plain(v) for v in state.values()), key=lambda t: len(t.storage.data))
    state["transformer.wte.weight"] = tensor(matrix.shape, matrix.storage.data)
    state["lm_head.weight"] = tensor(matrix.shape, matrix.storage.data)
    if not isinstance(value.get("config"), dict):
        raise Inapplicable("the file holds no configuration that could say that they are tied")
    value["config"]["tie_word_embeddings"] = True


def _stale_buffer(value: Any) -> None:
    positions = struct.pack("<16q", *range(16))
    model(value)["embeddings.position_ids"] = tensor((1, 16), positions, "int64")


def _prefixed(value: Any) -> None:
    state = model(value)
    items = list(state.items())
    state.clear()
    state.update((f"module.{name}", found) for name, found in items)


def _twice(value: Any) -> None:
    state = model(value)
    rng = random.Random(1)
    data = struct.pack("<16384f", *(rng.gauss(0, 0.1) for _ in range(16384)))
    state["large.weight"] = tensor((128, 128), data)
    state["copied.weight"] = tensor((128, 128), data)


def _small_view(value: Any) -> None:
    """A slice saved with the whole tensor that it was cut from."""
    state = model(value)
    matrix = max((_plain(v) for v in state.values()), key=lambda t: len(t.storage.data))
    whole = Storage(matrix.storage.data * 16, matrix.storage.dtype)
    state["sliced.weight"] = Tensor(whole, (4,), (1,))


def _on_device(value: Any) -> None:
    for state in _moments(value):
        if not isinstance(state["step"], Tensor):
            raise Inapplicable("the optimizer's steps are no tensors")
        state["step"].storage.device = "cuda:0"


_change("emptied-weights", "zero3-placeholders", "every weight is empty: saved from one rank of ZeRO-3", _emptied)
_change("untied-pair", "untied-pair", "embedding and output layer, once one tensor, are two", _untied)
_change("stale-buffer", "stale-buffer", "a buffer that newer versions of the model do not have", _stale_buffer)
_change("wrapped", "wrapper-prefix", "every key begins with the name of a wrapper", _prefixed)
_change("copied-weight", "duplicate-content", "a weight is stored twice", _twice)
_change("sliced-weight", "unaddressed-bytes", "a slice that drags its whole source along", _small_view)
_change("steps-on-device", "device-bound-state", "the optimizer's steps are bound to a GPU", _on_device)


# --- missing parts -----------------------------------------------------------------------------------------


def _without(what: str, *names: str) -> Callable[[Any], None]:
    def change(value: Any) -> None:
        found = [k for k in value if any(name in str(k) for name in names)] if isinstance(value, dict) else []
        if not found:
            raise Inapplicable(f"the file holds no {what}")
        for key in found:
            del value[key]

    return change


def _alone(value: Any) -> Any:
    return model(value)


_change("no-optimizer", "not-resumable", "the optimizer was not saved", _without("optimizer", "optim"))
_change("weights-alone", "requirement-not-met", "only the weights were saved where a resume is required", _alone)
_change("no-rng", "not-exact", "the random number generators were not saved", _without("RNG", "rng"))
