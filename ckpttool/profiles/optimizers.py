"""Reading an optimizer's state dict: groups, slots, shapes, class. One pass over its states."""

from __future__ import annotations

from ckpttool.frozen import dataclass
from ckpttool.layout import Slot
from ckpttool.model import Mapping, Scalar, Tensor, Value
from ckpttool.profiles.discovery import is_flat_optimizer, is_optimizer
from ckpttool.profiles.fingerprints import COMPRESSED, PARAMETER_SHAPED, kind_of
from ckpttool.profiles.view import Path, View
from ckpttool.tree import items, key_text

State = tuple[tuple[str, int], ...]
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A parameter group: the ids that it lists, their names where recorded, its plain settings."""

    idents: tuple[str, ...]
    names: tuple[str, ...]
    settings: dict[str, Scalar]
    spelled: bool


@dataclass(frozen=True, slots=True)
class RawOptimizer:
    """An optimizer before its slots have names. ``keyed`` says that its ids are the parameters' names."""

    path: Path
    index: int
    kind: str
    slots: tuple[Slot, ...]
    groups: int
    recorded: bool
    keyed: bool
    orphans: tuple[str, ...]
    stateless: tuple[str, ...]


def optimizers_at(view: View, path: Path, index: int, levels: int = 3) -> list[tuple[Path, int]]:
    """The optimizers at or below a node: one, a list of them, or wrapped in something else."""
    if index < 0:
        return []
    if is_optimizer(view, index) or is_flat_optimizer(view, index):
        return [(path, index)]
    if levels == 0:
        return []
    below = view.below(index)[:64]
    return [hit for key, child in below for hit in optimizers_at(view, (*path, key), child, levels - 1)]


def read_optimizer(view: View, path: Path, index: int) -> RawOptimizer:
    """Read the optimizer at ``index``; whatever is not as torch writes it is left out."""
    if not is_optimizer(view, index):
        return _read_flat(view, path, index)
    known = view.fields(index)
    groups = [_group(view, i) for i in items(view.checkpoint, known["param_groups"])]
    states = _states(view, known["state"])
    slots = tuple(_slots(view, groups, states))
    listed = {slot.ident for slot in slots}
    settings = groups[0].settings if groups else {}
    moments = {moment for state in states.values() for moment, _ in state}
    return RawOptimizer(
        path,
        index,
        kind_of(settings, moments),
        slots,
        len(groups),
        bool(groups) and all(len(g.names) == len(g.idents) for g in groups) and bool(listed),
        bool(groups) and all(g.spelled for g in groups) and bool(listed),
        tuple(ident for ident in states if ident not in listed),
        tuple(slot.ident for slot in slots if not slot.state),
    )


def _read_flat(view: View, path: Path, index: int) -> RawOptimizer:
    """An optimizer whose keys are ``state.NAME.MOMENT`` and ``param_groups.NAME.SETTING``; a name may have dots."""
    states: dict[str, list[tuple[str, int]]] = {}
    listed: dict[str, dict[str, Scalar]] = {}
    for key, child in view.fields(index).items():
        head, _, rest = key.partition(".")
        name, _, last = rest.rpartition(".")
        node = view.node(child)
        if head == "state":
            states.setdefault(name, []).append((last, child))
        else:
            listed.setdefault(name, {})[last] = node.value if isinstance(node, Value) else "…"
    slots = tuple(
        Slot(name, 0, name, "confirmed", _shape(view, tuple(states.get(name, ()))), tuple(states.get(name, ())))
        for name in listed
    )
    moments = {moment for state in states.values() for moment, _ in state}
    return RawOptimizer(
        path,
        index,
        kind_of(next(iter(listed.values()), {}), moments),
        slots,
        1,
        False,
        True,
        tuple(name for name in states if name not in listed),
        tuple(slot.ident for slot in slots if not slot.state),
    )


def _group(view: View, index: int) -> Group:
    known = view.fields(index)
    listed = [view.node(i) for i in items(view.checkpoint, known.get("params"))]
    names = [view.node(i) for i in items(view.checkpoint, known.get("param_names"))]
    settings = {k: n.value if isinstance(n := view.node(i), Value) else "…" for k, i in known.items()}
    return Group(
        tuple(key_text(node) for node in listed),
        tuple(n.value for n in names if isinstance(n, Value) and isinstance(n.value, str)),
        settings,
        bool(listed) and all(isinstance(n, Value) and isinstance(n.value, str) for n in listed),
    )


def _states(view: View, index: int) -> dict[str, State]:
    """Each id's state; ``None`` in place of a moment (SGD before its first step) is no state."""
    node, nodes = view.node(index), view.nodes
    if not isinstance(node, Mapping):
        return {}
    found: dict[str, State] = {}
    # Moments go by a handful of names, each one node: spelling them once halves the cost.
    spelled: dict[int, str] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        state: list[tuple[str, int]] = []
        below = nodes[value]
        for k, v in zip(below.keys, below.values, strict=True) if isinstance(below, Mapping) else ():
            name = spelled.get(k)
            if name is None:
                name = spelled[k] = key_text(nodes[k])
            moment = nodes[v]
            if not (type(moment) is Value and moment.value is None):
                state.append((name, v))
        found[key_text(nodes[key])] = tuple(state)
    return found


def _slots(view: View, groups: list[Group], states: dict[str, State]) -> list[Slot]:
    slots: list[Slot] = []
    for number, group in enumerate(groups):
        named = len(group.names) == len(group.idents)
        for i, ident in enumerate(group.idents):
            state = states.get(ident, ())
            name = group.names[i] if named else ident if group.spelled else None
            sure = "confirmed" if name is not None else "inferred"
            slots.append(Slot(ident, number, name, sure, _shape(view, state), state))  # type: ignore[arg-type]
    return slots


def _shape(view: View, state: State) -> Shape | None:
    """What a state's moments say of their parameter's shape; None where they say nothing sure."""
    nodes = view.nodes
    if not COMPRESSED.isdisjoint([name for name, _ in state]):
        return None
    shapes = {name: t.shape for name, i in state if isinstance(t := nodes[i], Tensor)}
    for name in PARAMETER_SHAPED:
        if name in shapes:
            return shapes[name]
    if "row_var" in shapes and "col_var" in shapes and shapes["row_var"] and shapes["col_var"]:
        return shapes["row_var"][:-1] + shapes["col_var"][-1:]
    if "exp_avg_sq_row" in shapes and shapes.get("exp_avg_sq_col"):
        return shapes["exp_avg_sq_row"] + shapes["exp_avg_sq_col"][-1:]
    sized = {shape for shape in shapes.values() if shape}
    return sized.pop() if len(sized) == 1 else None


def has_state(raw_kind: str, slots: tuple[Slot, ...], momentum: Scalar) -> bool:
    """Whether a resume finds moments here: any state, or an SGD that keeps none."""
    if any(slot.state for slot in slots):
        return True
    return raw_kind == "SGD" and momentum in (0, 0.0) and bool(slots)
