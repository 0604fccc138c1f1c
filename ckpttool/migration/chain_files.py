"""Files of a chain become its steps: rules in YAML, functions in Python, the settings of the folder. Runs nothing."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator

from ckpttool.errors import printable
from ckpttool.migration.chains import ChainError, Link
from ckpttool.migration.rule_file import load
from ckpttool.migration.rule_text import dump
from ckpttool.migration.rule_values import Reading, kind_of
from ckpttool.migration.yaml_items import Table, read_yaml
from ckpttool.stamps import digest_of

SETTINGS = ("chain.yaml", "chain.yml")
"""What the file is called that says where checkpoints of a chain tell their version."""


def yaml_link(text: str, name: str, where: str) -> Link:
    """The step that a file of rules is. Raises ``RuleError``; ``ChainError`` where it does not say its versions."""
    rules = load(text, where)
    missing = [key for key, said in (("from", rules.from_), ("to", rules.to)) if not said]
    if missing:
        raise ChainError(
            f"{printable(where)} – lacks '{missing[0]}': a step of a chain says which version it leads from and to"
        )
    return Link(name, where, rules.from_, rules.to, digest_of(dump(rules), {}), rules.about, rules)


def code_links(text: str, name: str, where: str) -> Iterator[Link]:
    """The steps in a Python file, read without running it. Raises ``ChainError`` where it has none."""
    try:
        tree = ast.parse(text, where)
    except (SyntaxError, ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ChainError(f"{printable(where)}{line} – this is not Python: {printable(reason)}") from None
    digest = hashlib.sha256(text.encode()).hexdigest()[:32]
    backs = _backs(tree)
    count = 0
    for function in _functions(tree):
        for call in _calls(function, "migration"):
            from_, to = _versions(call, f"{where}:{call.lineno}")
            about = (ast.get_docstring(function) or "").partition("\n")[0]
            place = f"{where}:{function.lineno}"
            yield Link(name, place, from_, to, digest, about, None, function.name, backs.get(function.name, ""))
            count += 1
    if not count:
        raise ChainError(
            f"{printable(where)} – has no function with @ckpttool.migration(from, to); names of helper modules begin "
            "with _"
        )


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    return (node for node in tree.body if isinstance(node, ast.FunctionDef))


def _calls(function: ast.FunctionDef, name: str) -> Iterator[ast.Call]:
    for one in function.decorator_list:
        if isinstance(one, ast.Call):
            called = one.func
            if (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")) == name:
                yield one


def _backs(tree: ast.Module) -> dict[str, str]:
    """Functions that lead back (``@up.down``), by the name of the one that leads there."""
    return {
        one.value.id: function.name
        for function in _functions(tree)
        for one in function.decorator_list
        if isinstance(one, ast.Attribute) and one.attr == "down" and isinstance(one.value, ast.Name)
    }


def _versions(call: ast.Call, where: str) -> tuple[str, str]:
    named = {word.arg: word.value for word in call.keywords}
    said = [*call.args, *(named[key] for key in ("from_", "to")[len(call.args) :] if key in named)]
    values = [one.value for one in said[:2] if isinstance(one, ast.Constant)]
    texts = [str(one) for one in values if isinstance(one, (str, int)) and not isinstance(one, bool)]
    if len(texts) < 2 or not all(texts):
        raise ChainError(f"{printable(where)} – the versions are written as texts: @ckpttool.migration('1', '2')")
    return texts[0], texts[1]


def settings_of(text: str, where: str) -> tuple[str, str]:
    """What ``chain.yaml`` says: the key of the version, the version of checkpoints that tell none; empty where not.

    Raises ``RuleError`` with the line of what makes no sense.
    """
    document = read_yaml(text, where)
    reading = Reading(where)
    if not isinstance(document, Table):
        raise reading.fault(document, f"the file holds {kind_of(document)}; it is a mapping, as in {{unstamped: '1'}}")
    reading.check_keys(document, ("about", "version", "unstamped"), "a chain")
    key = document.get("version")
    if isinstance(key, Table):
        reading.check_keys(key, ("key",), "'version'")
        key = key.get("key")
    unstamped = document.get("unstamped")
    return (
        "" if key is None else reading.text(key, "'version'"),
        "" if unstamped is None else reading.text(unstamped, "'unstamped'"),
    )
