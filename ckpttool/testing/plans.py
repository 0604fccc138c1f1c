"""Plans from rewritings written by hand, for tests of what moves with the weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ckpttool.draft import Made
from ckpttool.expressions import Applied, Expression, Leaf
from ckpttool.migration.planning import plan
from ckpttool.migration.reach import Wishes
from ckpttool.model import Checkpoint, Tensor
from ckpttool.ops import Concat, Split, Transpose
from ckpttool.plan import Plan
from ckpttool.profiles import lay_out
from ckpttool.rewriting import Dropped, Names, Output, Rewriting, Tied
from ckpttool.testing.trees import T, checkpoint_of


def rewriting_of(
    names: Names, changes: dict[str, Any], drop: Iterable[str] = (), ties: Iterable[Tied] = ()
) -> Rewriting:
    """A rewriting by old name: a new name, or a list of outputs that stand in its place."""
    drop = set(drop)
    outputs: list[Output] = []
    for item in names.items:
        made = changes.get(item.name, item.name)
        if item.name in drop:
            continue
        outputs += [Output(made, Leaf(item.name))] if isinstance(made, str) else made
    dropped = tuple(Dropped(item.name) for item in names.items if item.name in drop)
    return Rewriting(tuple(outputs), dropped, tuple(ties))


def planned(value: Any, changes: dict[str, Any], *, wishes: Wishes | None = None, **more: Any) -> Plan:
    """The plan for a tree spelled in plain values."""
    checkpoint = value if isinstance(value, Checkpoint) else checkpoint_of(value)
    kept = {k: more.pop(k) for k in ("drop", "ties") if k in more}
    return plan(
        checkpoint, lay_out(checkpoint), lambda names: rewriting_of(names, changes, **kept), wishes=wishes, **more
    )


def keys(plan: Plan) -> list[str]:
    """Every key of the result, in order."""
    return [entry.key for entry in plan.draft.checkpoint.entries()]


def tensors(plan: Plan) -> dict[str, Tensor]:
    """The tensors of the result by key."""
    return {entry.key: tensor for entry, tensor in plan.draft.checkpoint.tensors()}


def values(plan: Plan) -> dict[str, Any]:
    """The plain values of the result by key."""
    return {entry.key: entry.node.value for entry in plan.draft.checkpoint.entries() if hasattr(entry.node, "value")}


def made_of(plan: Plan, key: str) -> Expression:
    """What a computed tensor of the result is made of."""
    storage = tensors(plan)[key].storage
    assert storage is not None
    content = plan.draft.contents[storage]
    assert isinstance(content, Made)
    return content.expression


def split(name: str, into: Iterable[str], dim: int = 0) -> list[Output]:
    """The outputs of a split in equal parts."""
    into = list(into)
    op = Split(sections=len(into), dim=dim)
    return [Output(new, Applied(op, (Leaf(name),), part)) for part, new in enumerate(into)]


def merged(into: str, names: Iterable[str]) -> Output:
    """The output of a concatenation of rows."""
    return Output(into, Applied(Concat(0), tuple(Leaf(name) for name in names)))


def adam(
    shapes: Iterable[tuple[int, ...]], groups: Iterable[Iterable[int]] | None = None, **group: Any
) -> dict[str, Any]:
    """An Adam's state dict over parameters of these shapes."""
    shapes = list(shapes)
    state = {i: {"step": T(()), "exp_avg": T(s), "exp_avg_sq": T(s)} for i, s in enumerate(shapes)}
    listed = [list(range(len(shapes)))] if groups is None else [list(g) for g in groups]
    return {
        "state": state,
        "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99), "amsgrad": False, **group, "params": g} for g in listed],
    }


def turned(name: str) -> dict[str, list[Output]]:
    """The change that transposes a matrix under its name."""
    return {name: [Output(name, Applied(Transpose(), (Leaf(name),)))]}
