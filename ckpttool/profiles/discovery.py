"""Finding roles by what stands in the tree, whatever it is called: one walk over its containers.

It goes no further into what it has recognised, so its cost is the number of containers outside state dicts
and optimizers. Names decide only where content cannot.
"""

from __future__ import annotations

from ckpttool.frozen import dataclass
from ckpttool.layout import SectionName
from ckpttool.model import Call, Mapping, Node, Sequence, Tensor, Value
from ckpttool.profiles import names
from ckpttool.profiles.generators import generator_kind, generators_below
from ckpttool.profiles.view import Path, View

MAX_LEVELS = 8
MAX_CONTAINERS = 20_000
_MODULE = frozenset({"_parameters", "_modules"})


@dataclass(frozen=True, slots=True)
class Found:
    """A role met at a place. ``name`` is None for a dict of tensors that no name explains."""

    role: SectionName | None
    path: Path
    index: int
    tensors: int = 0


def discover(view: View) -> list[Found]:
    """Every part of the tree that plays a recognisable role, in the file's order."""
    root = view.checkpoint.root
    if root is None:
        return []
    found: list[Found] = []
    stack: list[tuple[Path, int]] = [((), root)]
    seen: set[int] = set()
    while stack and len(seen) < MAX_CONTAINERS:
        path, index = stack.pop()
        # What stands near the top may be saved under two names; further down a second visit tells nothing new.
        if index in seen and len(path) > 2:
            continue
        part = role_at(view, path, index)
        if part is not None:
            found.append(part)
            stack.extend(_inside(view, part))
            continue
        seen.add(index)
        if len(path) < MAX_LEVELS:
            stack.extend(((*path, key), child) for key, child in reversed(view.below(index)))
    return found


def _inside(view: View, part: Found) -> list[tuple[Path, int]]:
    """What a recognised part holds beside itself: the scaler that MMEngine keeps inside its optimizer."""
    if part.role != "optimizer":
        return []
    known = view.fields(part.index)
    extra = [k for k in known if k not in ("state", "param_groups")]
    return [((*part.path, k), known[k]) for k in extra if isinstance(view.node(known[k]), Mapping)]


def role_at(view: View, path: Path, index: int) -> Found | None:
    """What the node at ``path`` is, None if that cannot be told or it only holds other parts."""
    name = path[-1] if path else ""
    node = view.node(index)
    if isinstance(node, (Value, Tensor)):
        return _leaf(view, path, index, node)
    role = _by_content(view, name, index, node) or _by_name(view, path, index, node)
    if role is not None:
        return Found(role, path, index, _tensors(view, node))
    if len(path) <= 3 and is_state_dict(view, node):
        weights = not path or names.is_weights(name)
        return Found("weights" if weights else None, path, index, _tensors(view, node))
    return None


def _leaf(view: View, path: Path, index: int, node: Value | Tensor) -> Found | None:
    name = path[-1] if path else ""
    if isinstance(node, Tensor) and generator_kind(view, index, name):
        return Found("rng", path, index)
    # 0-d tensors count too: scripts keep counters as buffers.
    counts = isinstance(node, Tensor) and not node.shape and node.dtype.kind in ("int", "uint")
    counts = counts or (isinstance(node, Value) and type(node.value) in (int, float))
    if not counts or not path or len(path) > 3 or not all(p in names.COUNTER_HOMES for p in path[:-1]):
        return None
    if name in names.POSITIONS:
        return Found("data", path, index)
    return Found("counters", path, index) if name in names.COUNTERS else None


def _by_content(view: View, name: str, index: int, node: Node) -> SectionName | None:
    if isinstance(node, Sequence):
        if generator_kind(view, index, name):
            return "rng"
        return _of_all(view, name, node)
    if not isinstance(node, Mapping):
        return "rng" if generator_kind(view, index, name) else None
    if is_optimizer(view, index) or is_flat_optimizer(view, index):
        return "optimizer"
    known = view.fields(index)
    if "_growth_tracker" in known or ("growth_factor" in known and "scale" in known):
        return "scaler"
    if is_scheduler(known):
        return "scheduler"
    return "rng" if generator_kind(view, index, name) else None


def _of_all(view: View, name: str, node: Sequence) -> SectionName | None:
    if not 0 < len(node.items) <= 64:
        return None
    roles = {_by_content(view, name, i, view.node(i)) for i in node.items if isinstance(view.node(i), Mapping)}
    role = roles.pop() if len(roles) == 1 else None
    return role if role in ("optimizer", "scheduler", "scaler") else None


def _by_name(view: View, path: Path, index: int, node: Node) -> SectionName | None:
    name = path[-1] if path else ""
    if not path:
        return "weights" if is_module(view, node) else None
    if len(path) > 4:
        return None
    if names.is_rng(name) and generators_below(view, index, name):
        return "rng"
    if names.is_scaler(name) and isinstance(node, Mapping) and not node.keys:
        return "scaler"
    if name in names.DATA or (name in names.VAGUE_DATA and _speaks_of_position(view, index)):
        return "data" if view.below(index) else None
    if names.is_ema(name) and holds_tensors(view, index):
        return "ema"
    if is_module(view, node) and holds_tensors(view, index):
        return "weights"
    if name in names.CONFIG and not holds_tensors(view, index):
        return "config"
    return None


def _speaks_of_position(view: View, index: int) -> bool:
    return any(names.POSITION_WORDS.search(key.lower()) for key, _ in view.below(index)[:64])


def is_optimizer(view: View, index: int) -> bool:
    """Whether the node is an optimizer's state dict by its keys: ``state`` and ``param_groups``."""
    node = view.node(index)
    if not isinstance(node, Mapping) or not 2 <= len(node.keys) <= 8:
        return False
    known = view.fields(index)
    if "state" not in known or "param_groups" not in known:
        return False
    groups = view.node(known["param_groups"])
    return isinstance(groups, Sequence) and isinstance(view.node(known["state"]), Mapping)


def is_flat_optimizer(view: View, index: int) -> bool:
    """Whether the node is an optimizer's state with flat names, as FSDP's helpers make it: ``state.NAME.exp_avg``."""
    node = view.node(index)
    if not isinstance(node, Mapping) or len(node.keys) < 2:
        return False
    known = view.fields(index)
    heads = {key.partition(".")[0] for key in known}
    return heads == {"state", "param_groups"} and all(key.count(".") >= 2 for key in known)


def is_scheduler(known: dict[str, int]) -> bool:
    """Whether a mapping's keys are a schedule's: torch's, MMEngine's or Megatron's."""
    if "last_epoch" in known or "_schedulers" in known:
        return True
    return {"last_step", "_last_value"} <= known.keys() or {"max_lr", "num_steps", "lr_decay_style"} <= known.keys()


def is_module(view: View, node: Node) -> bool:
    """Whether a call builds a pickled ``nn.Module``."""
    return isinstance(node, Call) and node.state is not None and view.fields(node.state).keys() >= _MODULE


def is_state_dict(view: View, node: Node) -> bool:
    """Whether a mapping holds nothing but tensors, at least one of them of real numbers."""
    if not isinstance(node, Mapping) or not node.values:
        return False
    nodes = view.nodes
    if not all(type(nodes[v]) is Tensor for v in node.values):
        return False
    return any(isinstance(t := nodes[v], Tensor) and t.dtype.kind != "uint" and t.shape for v in node.values)


def holds_tensors(view: View, index: int, visits: int = 2_000) -> bool:
    """Whether a tensor stands below a node; looks at no more than ``visits`` nodes."""
    stack, seen = [index], set[int]()
    while stack and len(seen) < visits:
        at = stack.pop()
        if at in seen:
            continue
        seen.add(at)
        node = view.node(at)
        if isinstance(node, Tensor):
            return True
        if isinstance(node, Mapping):
            stack.extend(reversed(node.values))
        elif isinstance(node, Sequence):
            stack.extend(reversed(node.items))
        elif isinstance(node, Call):
            stack.extend([*node.args, *node.items, *node.values])
            if node.state is not None:
                stack.append(node.state)
    return False


def _tensors(view: View, node: Node) -> int:
    """How many tensors a mapping holds directly."""
    values = node.values if isinstance(node, Mapping) else ()
    nodes = view.nodes
    return sum(1 for v in values if type(nodes[v]) is Tensor)
