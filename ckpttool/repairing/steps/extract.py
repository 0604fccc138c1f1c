"""Whole pickled modules and TorchScript archives give way to the state dicts of what they hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ckpttool.draft import Draft
from ckpttool.editing import Editor, below
from ckpttool.errors import CkpttoolError, printable
from ckpttool.model import Call, Checkpoint, Global, Mapping, Tensor
from ckpttool.plan import Step
from ckpttool.repairing.case import Case, Mended
from ckpttool.repairing.modules import Named, detached, is_module, is_script, state_of, state_of_script
from ckpttool.repairing.plain.allowed import is_allowed
from ckpttool.tree import lookup, paths_to
from ckpttool.units import plural

SCRIPT = "torchscript"


def mend(case: Case) -> Mended:
    """Replace every module by its parameters and persistent buffers. Classes and code are not looked at.

    Raises ``CkpttoolError`` for a TorchScript archive whose tree holds no module.
    """
    checkpoint = case.draft.checkpoint
    return _of_archive(case) if checkpoint.format == SCRIPT else _of_pickles(case)


def _of_pickles(case: Case) -> Mended:
    checkpoint = case.draft.checkpoint
    editor = Editor(checkpoint, case.draft.contents)
    found = list(_outermost(checkpoint))
    if not found:
        return Mended(case.draft)
    paths = paths_to(checkpoint, set(found))
    steps = []
    for index in found:
        names = state_of(checkpoint.nodes, index)
        editor.replace(index, _state_dict(editor, names))
        key = ".".join(paths.get(index, ()))
        reason = f"a pickled module needs its class: {plural(len(names), 'tensor')} as state_dict() names them"
        steps.append(Step("extract", (key,) if key else (), tuple(_under(key, names)), reason))
    return Mended(_without_classes(editor.finish()), tuple(steps))


def _without_classes(draft: Draft) -> Draft:
    """The draft without the names that only its modules asked for."""
    checkpoint = draft.checkpoint
    used = {(node.module, node.name) for node in checkpoint.nodes if isinstance(node, (Call, Global))}
    kept = [u for u in checkpoint.globals if is_allowed(u.module, u.name) or (u.module, u.name) in used]
    return replace(draft, checkpoint=replace(checkpoint, globals=tuple(kept)))


def _outermost(checkpoint: Checkpoint) -> Iterator[int]:
    """Modules that do not lie within another one, in the order of the tree."""
    stack = [] if checkpoint.root is None else [checkpoint.root]
    seen = set(stack)
    while stack:
        index = stack.pop()
        if is_module(checkpoint.nodes, index):
            yield index
            continue
        fresh = [one for one in below(checkpoint.nodes[index]) if one not in seen]
        seen.update(fresh)
        stack.extend(reversed(fresh))


def _of_archive(case: Case) -> Mended:
    checkpoint = case.draft.checkpoint
    root = checkpoint.root
    inner = lookup(checkpoint, root, "module")
    index = inner if inner is not None else root
    if index is None or not is_script(checkpoint.nodes[index]):
        why = "the tree of this TorchScript archive holds no module"
        raise CkpttoolError(f"{printable(checkpoint.source)} – {why}")
    editor = Editor(checkpoint, case.draft.contents)
    names = state_of_script(checkpoint.nodes, index)
    editor.root = editor.put(_state_dict(editor, names))
    rest = tuple(damage for damage in checkpoint.damage if damage.rule != "contains-code")
    reason = f"a TorchScript archive is code: {plural(len(names), 'tensor')} of its module, by their attributes' names"
    note = "a TorchScript tree does not tell parameters from other tensors that a module keeps: all are there"
    draft = editor.finish(format="torch-zip", damage=rest, globals=())
    return Mended(draft, (Step("extract", (), tuple(_under("", names)), reason),), notes=(note,))


def _state_dict(editor: Editor, names: list[Named]) -> Mapping:
    keys, values = [], []
    for one in names:
        tensor = editor.nodes[one.index]
        assert isinstance(tensor, Tensor)
        keys.append(editor.value(one.name))
        values.append(editor.put(detached(editor.nodes, tensor)))
    return Mapping("OrderedDict", tuple(keys), tuple(values))


def _under(key: str, names: list[Named]) -> Iterator[str]:
    return (f"{key}.{one.name}" if key else one.name for one in names)
