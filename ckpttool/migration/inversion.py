"""The rules that lead back. What cannot be undone says why, rule by rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from ckpttool.migration.compiled import check_rule
from ckpttool.migration.inverse_contents import UNDO_CONTENT, OneWay, Options, refuse_sizes
from ckpttool.migration.losses import loss_of
from ckpttool.migration.patterns import escape
from ckpttool.migration.rule_errors import RuleError
from ckpttool.migration.rule_nouns import Conditions, Guard, Option, Rule, RuleFile, Stage
from ckpttool.migration.vocabulary import KINDS


def inverse(rules: RuleFile) -> RuleFile:
    """The rules that undo these: stages from the last to the first, in each the names before the contents.

    Raises ``RuleError`` that names every rule which cannot be undone, and why.
    """
    faults: list[tuple[Rule, str]] = []
    stages = [stage for old in reversed(rules.stages) for stage in _stages(old, rules.names, faults) if stage.rules]
    if faults:
        first, _ = faults[0]
        said = "; ".join(f"{rule.where}, {rule.text}: {why}" for rule, why in faults)
        raise RuleError(first.where, f"the rules cannot be reversed – {said}")
    back = replace(rules, stages=tuple(stages), from_=rules.to, to=rules.from_, about=_about(rules.about))
    from ckpttool.migration.rule_text import dump

    return replace(back, text=dump(back))


def check_back(rule: Rule, given: frozenset[str]) -> None:
    """Raise ``RuleError`` where a rule states how it is undone, and that makes no sense."""
    if isinstance(rule.option("restore"), Conditions) or isinstance(rule.option("reverse"), Conditions):
        try:
            for one in _UNDO[rule.kind](rule, dict(rule.options)):
                _checked(one, given)
        except OneWay as why:
            raise RuleError(rule.where, f"its way back: {why}", rule=rule.text) from None


def _about(text: str) -> str:
    mark = "reverse of: "
    return text.removeprefix(mark) if text.startswith(mark) else mark + text if text else ""


def _stages(stage: Stage, given: frozenset[str], faults: list[tuple[Rule, str]]) -> tuple[Stage, Stage]:
    """Contents were changed under the old names, and before the names were: so they come back after them."""
    content = any(_role(rule) == "content" for rule in stage.rules)
    names: list[Rule] = []
    contents: list[Rule] = []
    for rule in stage.rules:
        try:
            back = _undone(rule, content)
            for one in back:
                _checked(one, given)
        except OneWay as why:
            faults.append((rule, str(why)))
            continue
        if _role(rule) == "content":
            contents[:0] = back
        elif _role(rule) == "extra":
            names[:0] = back  # a drop stands before a wider rename
        else:
            names.extend(back)
    return Stage(tuple(names)), Stage(tuple(contents))


def _role(rule: Rule) -> str:
    return "extra" if rule.kind == "slice" and rule.targets else KINDS[rule.kind].role


def _checked(rule: Rule, given: frozenset[str]) -> None:
    try:
        check_rule(rule, given)
    except RuleError as fault:
        raise OneWay(fault.problem) from None


def _undone(rule: Rule, with_content: bool) -> list[Rule]:
    """The rules that undo one; none where nothing is left to undo. Raises ``OneWay``."""
    undo = _UNDO.get(rule.kind)
    if undo is None:
        raise OneWay(loss_of(rule) or "nothing undoes it")
    back = undo(rule, dict(rule.options))
    guard = _guard(rule, with_content) if back else None
    return [replace(one, when=guard, back=rule.when, states_back=rule.states_back) for one in back]


def _guard(rule: Rule, with_content: bool) -> Guard | None:
    """The guard of the way back: as stated, else the same one where it still means the same."""
    guard = rule.when
    if rule.states_back or guard is None:
        return rule.back
    content = _role(rule) == "content"
    if guard.version or (guard.speaks_of_names and not content):
        said = "recorded versions are found by names" if guard.version else "its guard speaks of the old names"
        raise OneWay(f"{said}, which are others on the way back: say reverse_when, or reverse_when: always")
    reshapes = rule.kind not in ("roll", "reorder", "cast") if content else with_content
    if guard.speaks_of_content and (reshapes or (guard.dtype and rule.kind == "cast")):
        raise OneWay("its guard speaks of a content that the rules change: say reverse_when")
    return guard


# --- names -------------------------------------------------------------------------------------------------------


def _rename(rule: Rule, options: Options) -> list[Rule]:
    if not rule.regex:
        return [_swapped(rule, "rename")]
    back = rule.option("reverse")
    if not isinstance(back, Conditions):
        raise OneWay("a regular expression is not undone by itself: say reverse: {regex: …, to: …}")
    if back.get("to") is None or (back.get("regex") is None) == (back.get("name") is None):
        raise OneWay("'reverse' lacks 'to'" if back.get("to") is None else "'reverse' has one of regex and name")
    regex = back.get("regex")
    source = str(back.get("name") if regex is None else regex)
    forth = Conditions((("regex", rule.sources[0]), ("to", rule.targets[0])))
    return [
        replace(
            rule, sources=(source,), targets=(str(back.get("to")),), regex=regex is not None,
            options=(("reverse", forth),) if regex is not None else (),
        )
    ]  # fmt: skip


def _swapped(rule: Rule, kind: str, options: Iterable[tuple[str, Option]] = ()) -> Rule:
    return replace(rule, kind=kind, sources=rule.targets, targets=rule.sources, options=tuple(options))


def _split(rule: Rule, options: Options) -> list[Rule]:
    refuse_sizes(options.get("sizes"))
    return [_swapped(rule, "concat", rule.options)]


def _concat(rule: Rule, options: Options) -> list[Rule]:
    if options.get("sizes") == "any":
        raise OneWay("where one part ends and the next begins is not said: give sizes")
    refuse_sizes(options.get("sizes"))
    return [_swapped(rule, "split", rule.options)]


def _drop(rule: Rule, options: Options) -> list[Rule]:
    restore = options.get("restore")
    if restore == "nothing":
        return []
    if not isinstance(restore, Conditions):
        raise OneWay("what it drops is not kept: say what to restore, or restore: nothing")
    return [replace(rule, kind="add", sources=(), targets=rule.sources, options=restore.items)]


def _add(rule: Rule, options: Options) -> list[Rule]:
    restore = Conditions(rule.options)
    return [
        replace(rule, kind="drop", sources=rule.targets, targets=(), options=(("restore", restore),), optional=True)
    ]


def _tie(rule: Rule, options: Options) -> list[Rule]:
    new = options.get("new")
    if new is None:
        raise OneWay("whether the key was there before is not said: new: true, or new: false")
    return [replace(rule, kind="drop", sources=rule.targets, targets=(), options=())] if new else []


def _strip(rule: Rule, options: Options) -> list[Rule]:
    wrap = options.get("wrap")
    if wrap is None:
        raise OneWay("which keys were wrapped, and by what, is not kept: say wrap, as in wrap: module")
    return [
        replace(rule, kind="rename", sources=("{rest...}",), targets=(escape(str(wrap)) + ".{rest...}",), options=())
    ]


_UNDO: dict[str, Callable[[Rule, Options], list[Rule]]] = {
    **UNDO_CONTENT,
    "rename": _rename,
    "split": _split,
    "unstack": lambda rule, options: [_swapped(rule, "stack", rule.options)],
    "stack": lambda rule, options: [_swapped(rule, "unstack", rule.options)],
    "concat": _concat,
    "drop": _drop,
    "add": _add,
    "tie": _tie,
    "strip": _strip,
}
