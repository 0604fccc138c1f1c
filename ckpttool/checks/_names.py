"""Where in a file the names stand that it asks to import; shared by the safety checks. Holds no rule."""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.errors import printable
from ckpttool.model import Call, Damage, Facts, Global, GlobalUse
from ckpttool.rules import Context
from ckpttool.safety import Standing, standing
from ckpttool.tree import paths_to

SHOWN = 20
"""Names of one kind that are listed; the rest is counted."""


def trusted(context: Context) -> frozenset[str]:
    """The names that the user vouches for."""
    names = context.settings.get("trust")
    return frozenset(str(name) for name in names) if isinstance(names, list) else frozenset()


def names_of(context: Context, wanted: Standing) -> list[GlobalUse]:
    """The globals of one standing, in the file's order, each once."""
    vouched = trusted(context)
    script = context.checkpoint.format == "torchscript"
    uses: dict[tuple[str, str], GlobalUse] = {}
    for use in context.checkpoint.globals:
        own = script and use.module.startswith("__torch__")  # a type of the archive's own code
        if not own and _standing(use, vouched) == wanted:
            uses.setdefault((use.module, use.name), use)
    return list(uses.values())


def _standing(use: GlobalUse, vouched: frozenset[str]) -> Standing:
    # ``getattr`` that only ever names methods of project classes needs their code and nothing else.
    if use.name == "getattr" and use.module in ("builtins", "__builtin__") and use.calls and not use.odd_calls:
        return "needs-code"
    return standing(use.module, use.name, vouched)


def statements(context: Context, rule: str, uses: list[GlobalUse], what: str, hint: str) -> Iterator[Damage]:
    """One damage for each name, with the path at which it stands, and one that counts the rest."""
    paths = paths_of(context, uses[:SHOWN])
    for use in uses[:SHOWN]:
        path = paths.get((use.module, use.name))
        at = f"at {printable(path)}" if path else f"in {use.where} byte {use.offset}"
        facts: Facts = {"global": use.dotted, "record": use.where, "offset": use.offset, "calls": use.calls}
        verb = "calls" if use.calls else "names"
        yield Damage(rule, printable(path or use.where), f"{verb} {printable(use.dotted)} {at}: {what}", facts, hint)
    if len(uses) > SHOWN:
        rest = len(uses) - SHOWN
        yield Damage(rule, "file", f"{rest} more names of this kind", {"more": rest})


def paths_of(context: Context, uses: list[GlobalUse]) -> dict[tuple[str, str], str]:
    """The dotted path of the first node that carries each name; names out of reach of the root are left out."""
    wanted = {(use.module, use.name) for use in uses}
    first: dict[tuple[str, str], int] = {}
    if wanted:
        for index, node in enumerate(context.checkpoint.nodes):
            if isinstance(node, (Call, Global)) and (node.module, node.name) in wanted:
                first.setdefault((node.module, node.name), index)
    found = paths_to(context.checkpoint, set(first.values()))
    return {key: ".".join(found[index])[:300] for key, index in first.items() if index in found}
