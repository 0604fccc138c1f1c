"""A tree that ``torch.load(weights_only=True)`` loads: classes give way to plain data, dangerous names to a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ckpttool.editing import Editor
from ckpttool.errors import UsageError, printable
from ckpttool.model import Checkpoint, GlobalUse, Tensor
from ckpttool.plan import Step
from ckpttool.repairing.case import Case, Loss, Mended
from ckpttool.repairing.plain.allowed import is_allowed
from ckpttool.repairing.plain.sanitizer import Change, Sanitizer, devices
from ckpttool.safety import standing
from ckpttool.tree import paths_to
from ckpttool.units import plural

SCRIPT = "torchscript"
REFUSED = {
    "torch-tar": "torch.load(weights_only=True) refuses files of torch before 0.1.10",
    "pickle": "torch.load refuses a pickle that torch.save did not write",
}
"""Containers that the loader refuses whatever is in them, and why."""

SHOWN = 8
"""Names that a step lists; the rest is counted."""

_WHY = {
    "plain": "torch.load(weights_only=True) refuses {what}; in its place: {into}",
    "describe": "torch.load(weights_only=True) refuses {what}, which has no plain form; in its place: {into}",
    "remove": "{what} is nothing that a checkpoint needs, and loading it could run anything: cut out",
}


def mend(case: Case) -> Mended:
    """Replace what the loader refuses; tensors keep their bytes, and nothing is imported or called.

    Raises ``UsageError`` for TorchScript archives, whose tree is nothing without their code.
    """
    checkpoint = case.draft.checkpoint
    if checkpoint.format == SCRIPT:
        why = "a TorchScript archive is code; its parameters alone can be had: add --extract-weights"
        raise UsageError(f"{printable(checkpoint.source)} – {why}")
    editor = Editor(checkpoint, case.draft.contents)
    sanitizer = Sanitizer(editor)
    sanitizer.run()
    tags = sorted(set(devices(editor)))
    foreign = sorted({d.message for d in checkpoint.damage if d.rule == "foreign-opcode"})
    unused = _unused(checkpoint, sanitizer.changes)
    container = REFUSED.get(checkpoint.format)
    if not (sanitizer.changes or tags or foreign or unused or container):
        return Mended(case.draft)
    kept = tuple(use for use in checkpoint.globals if _stays(use))
    rest = tuple(damage for damage in checkpoint.damage if damage.rule != "foreign-opcode")
    draft = editor.finish(globals=kept, damage=rest)
    steps = (
        *_steps(checkpoint, sanitizer.changes),
        *(Step("move", (), (), f"tensors of {printable(tag)} load on the CPU") for tag in tags),
        *(Step("respell", (), (), f"{printable(message)}: written as torch writes it") for message in foreign),
        *_leftovers(unused),
        *([Step("respell", (), (), f"{container}: written as an archive")] if container else []),
    )
    return Mended(draft, steps, tuple(_losses(checkpoint, draft.checkpoint)), tuple(_notes(sanitizer.changes)))


def _stays(use: GlobalUse) -> bool:
    """Whether a name is still imported; those of CUDA are told by their storages' devices."""
    return is_allowed(use.module, use.name) and use.module != "torch.cuda" and not use.beside


def _unused(checkpoint: Checkpoint, changes: Sequence[Change]) -> list[tuple[str, bool]]:
    """Names that are imported beside the tree, or went with what they were part of, and whether they are dangerous.

    Calls whose results are thrown away, and pickles in other records, are run by some loaders all the same.
    """
    told = {change.made.what for change in changes}
    found = {
        (use.dotted, standing(use.module, use.name) == "unsafe")
        for use in checkpoint.globals
        if use.module and not is_allowed(use.module, use.name) and not (changes and _respelled(use))
    }
    return sorted((printable(name), unsafe) for name, unsafe in found if name not in told)


def _leftovers(unused: Sequence[tuple[str, bool]]) -> Iterator[Step]:
    """One step for each dangerous name, one for all others."""
    for name, unsafe in unused:
        if unsafe:
            yield Step(
                "remove", (), (), f"{name} is a name that no checkpoint needs; nothing in the tree is made of it"
            )
    plain = [name for name, unsafe in unused if not unsafe]
    if plain:
        more = f" and {len(plain) - SHOWN} more" if len(plain) > SHOWN else ""
        yield Step("respell", (), (), f"not imported any more: {', '.join(plain[:SHOWN])}{more}")


def _respelled(use: GlobalUse) -> bool:
    """Names that arrays, numbers and objects of old protocols come with, where those are told of."""
    plain = standing(use.module, use.name) == "plain"
    return plain and use.module.partition(".")[0] in ("numpy", "copy_reg", "copyreg", "builtins", "__builtin__")


# --- what is told ----------------------------------------------------------------------------------------------


def _steps(checkpoint: Checkpoint, changes: Sequence[Change]) -> Iterator[Step]:
    """One step for each kind of change, with every key that it touches."""
    paths = paths_to(checkpoint, {change.index for change in changes})
    groups: dict[tuple[str, str, str], list[str]] = {}
    for change in changes:
        made = change.made
        key = ".".join(paths.get(change.index, ()))
        groups.setdefault((made.op, made.what, made.into), []).append(key)
    for (op, what, into), keys in groups.items():
        named = tuple(dict.fromkeys(key for key in keys if key))
        reason = _WHY[op].format(what=printable(what), into=into)
        yield Step(op, named, named, reason)


def _notes(changes: Sequence[Change]) -> Iterator[str]:
    removed = sum(change.made.op == "remove" for change in changes)
    if removed:
        yield f"{plural(removed, 'dangerous name')} cut out; the file was made to run code, or dragged some along"


def _losses(before: Checkpoint, after: Checkpoint) -> Iterator[Loss]:
    """Tensors that stood in what was cut out alone."""
    left = _places(after)
    for entry, tensor in before.tensors():
        for place in _own(before, tensor):
            if place not in left:
                yield Loss(entry.key, "it stood inside an object that was cut out", tensor.numel)
                break


def _places(checkpoint: Checkpoint) -> set[tuple[object, ...]]:
    return {
        _place(checkpoint, node) for node in checkpoint.nodes if isinstance(node, Tensor) and node.storage is not None
    }


def _own(checkpoint: Checkpoint, tensor: Tensor) -> Iterator[tuple[object, ...]]:
    if tensor.storage is not None and tensor.numel:
        yield _place(checkpoint, tensor)


def _place(checkpoint: Checkpoint, tensor: Tensor) -> tuple[object, ...]:
    assert tensor.storage is not None
    storage = checkpoint.storages[tensor.storage]
    return storage.span, storage.inline, tensor.offset, tensor.shape
