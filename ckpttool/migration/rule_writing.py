"""Links written as few rules that say exactly the same, checked name by name. Pure."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from ckpttool.errors import printable
from ckpttool.expressions import Op
from ckpttool.folding import fold
from ckpttool.frozen import dataclass
from ckpttool.migration.arithmetic import ArithmeticFault
from ckpttool.migration.inference import Link, Move, Question, Written
from ckpttool.migration.matching import Binding, Matcher, compile_pattern, write
from ckpttool.migration.patterns import Pattern, PatternFault, escape, parse_pattern, resolve
from ckpttool.migration.rule_nouns import Option, Rule
from ckpttool.migration.templates import LETTERS, Shape, by_core, by_module, exact, leaves_of, shapes, under
from ckpttool.ops import Cast, Concat, Reshape, Split, Stack, Unstack
from ckpttool.units import plural

WIDTH = 3
"""Reasons that a comment gives before it says that there are others."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """A rule, and what says the same more narrowly, should it say too much."""

    now: Written
    narrower: tuple[_Choice, ...] = ()


def written(
    links: Sequence[Link], unused: Sequence[str], names: Sequence[str], casts: Mapping[str, Op]
) -> tuple[Written, ...]:
    """The rules that turn ``names`` into what the links say: first those that change contents, then those for names.

    ``unused`` are dropped, ``casts`` are changes of element type by old name. Each pattern was tried on every name.
    """
    contents = _contents(links, casts, names)
    choices = [*_drops(unused, names), *_joins(links), *_renames(links)]
    return (*contents, *_settled(choices, links, unused, names))


# --- which pattern speaks of which name --------------------------------------------------------------------------


class _Tried:
    """A name rule as compiled patterns, to be tried on names."""

    def __init__(self, one: Written) -> None:
        self.one = one
        lead = parse_pattern(one.rule.sources[0])
        sources = [resolve(parse_pattern(text), lead) for text in one.rule.sources]
        self.literals = [source.literal for source in sources]
        self.sources = [_matcher(source, one.rule) for source in sources]
        self.target = resolve(parse_pattern(one.rule.targets[0]), lead) if one.rule.kind == "rename" else None
        self.moved = {name: move for move in one.moves for name in move.old}

    def says(self, name: str) -> tuple[str, ...] | None:
        """What becomes of a name; None where the rule does not speak of it."""
        for source in self.sources:
            binding = source.match(name)
            if binding is None:
                continue
            if self.target is not None:
                return (_name(self.target, binding),)
            return self.moved[name].new if name in self.moved else ("?",)
        return None


def _name(target: Pattern, binding: Binding) -> str:
    """What the rule makes of a name; a name that is nobody's where a number would be below 0."""
    try:
        return write(target, binding, {})
    except ArithmeticFault:
        return ""


def _matcher(pattern: Pattern, rule: Rule) -> Matcher:
    counted = frozenset(
        c.key for text in rule.targets for c in parse_pattern(text).captures if c.kind == "digits"
    )
    arithmetic = any(c.term is not None for text in rule.targets for c in parse_pattern(text).captures)
    return compile_pattern(pattern, {}, counted if arithmetic else frozenset())


def _settled(
    choices: Sequence[_Choice], links: Sequence[Link], unused: Sequence[str], names: Sequence[str]
) -> tuple[Written, ...]:
    """The widest patterns under which every name becomes what it should; what is wrong is written more narrowly."""
    truth: dict[str, tuple[str, ...]] = {name: (name,) for name in names}
    truth |= {name: link.new for link in links for name in link.old} | dict.fromkeys(unused, ())
    chosen = list(choices)
    while True:
        chosen.sort(key=lambda choice: _specificity(choice.now.rule))
        wrong = _wrong([_Tried(choice.now) for choice in chosen], truth)
        if not any(chosen[place].narrower for place in wrong):
            return tuple(choice.now for choice in chosen)
        chosen = [
            one
            for place, choice in enumerate(chosen)
            for one in (choice.narrower if place in wrong and choice.narrower else (choice,))
        ]


def _wrong(tried: Sequence[_Tried], truth: Mapping[str, tuple[str, ...]]) -> set[int]:
    """The places of rules that decide some name wrongly. Exact names are looked up, not matched."""
    exact_names: dict[str, int] = {}
    patterns: list[int] = []
    for at, rule in enumerate(tried):
        if all(rule.literals):
            for name in rule.literals:
                exact_names.setdefault(name or "", at)
        else:
            patterns.append(at)
    wrong: set[int] = set()
    for name, wanted in truth.items():
        first = exact_names.get(name, len(tried))
        before = patterns[: bisect_left(patterns, first)]
        for at in [*before, first] if first < len(tried) else before:
            said = tried[at].says(name)
            if said is not None:
                if said != wanted:
                    wrong.add(at)
                break
    return wrong


def _specificity(rule: Rule) -> tuple[bool, bool, int, str]:
    """Narrow rules before wide ones: no open end, then what is dropped, then more segments."""
    source = rule.sources[0]
    return "{rest...}" in source, rule.kind != "drop", -source.count("."), source


# --- rules of each kind ------------------------------------------------------------------------------------------


def _renames(links: Sequence[Link]) -> Iterator[_Choice]:
    """Renames of whole trees; where that says too much, of modules; of their listed tensors; of single ones."""
    moves = [
        Move(one.old, one.new) for one in links if len(one.old) == len(one.new) == 1 and one.old != one.new
    ]
    for some in by_core(shapes(moves)):
        modules = [_module(shapes_of) for shapes_of in by_module(some)]
        wide = under(some)
        yield from [_Choice(_rename(wide), tuple(modules))] if wide and len(some) > 1 else modules


def _module(some: Sequence[Shape]) -> _Choice:
    """The rename of a module's tensors."""
    singles = tuple(_narrow(shape, _rename(shape), _rename) for shape in some)
    listed = leaves_of(some)
    if listed is None:
        return singles[0] if len(singles) == 1 else _Choice(_rename(some[0]), singles)
    if len(some) == 1:
        return singles[0]
    tree = under(some)
    by_leaf = _Choice(_rename(listed), singles)
    return by_leaf if tree is None else _Choice(_rename(tree), (by_leaf,))


def _narrow(shape: Shape, now: Written, write_one: Callable[[Shape], Written]) -> _Choice:
    """A rule for layers, or else one for each of them."""
    if len(shape.moves) == 1:
        return _Choice(now)
    return _Choice(now, tuple(_Choice(write_one(exact(move))) for move in shape.moves))


def _rename(shape: Shape) -> Written:
    return Written(Rule("rename", shape.old, shape.new), shape.moves)


def _joins(links: Sequence[Link]) -> Iterator[_Choice]:
    """Splits, concatenations and stacks: one rule for all layers, or one for each."""
    groups: dict[Op, list[Move]] = defaultdict(list)
    for link in links:
        if link.op is not None and isinstance(link.op, (Split, Concat, Stack, Unstack)):
            groups[link.op].append(Move(link.old, link.new))
    for op, moves in groups.items():
        for shape in shapes(moves):
            yield _narrow(shape, _join(shape, op), partial(_join, op=op))


def _join(shape: Shape, op: Op) -> Written:
    options: list[tuple[str, Option]] = [("dim", getattr(op, "dim", 0))]
    if isinstance(op, Split) and op.sizes:
        options.append(("sizes", tuple(op.sizes)))
    return Written(Rule(op.name, shape.old, shape.new, tuple(options)), shape.moves)


def _drops(unused: Sequence[str], names: Sequence[str]) -> Iterator[_Choice]:
    """Whole modules where nothing of them is used, and single tensors, layers together."""
    members, lost = _members(names), _members(unused)
    below: dict[str, list[str]] = defaultdict(list)
    for name in unused:
        below[_root(name, lost, members)].append(name)
    trees = {root: some for root, some in below.items() if len(some) > 1}
    for shape in shapes([Move((root,), ()) for root in trees]):
        roots = [root for move in shape.moves for root in move.old]
        parts = tuple(_tree(escape(root), trees[root]) for root in roots)
        whole = _tree(shape.old[0], [name for root in roots for name in trees[root]])
        yield _Choice(whole.now, parts) if len(parts) > 1 else parts[0]
    for shape in shapes([Move((some[0],), ()) for some in below.values() if len(some) == 1]):
        yield _narrow(shape, _drop(shape), _drop)


def _members(names: Sequence[str]) -> Mapping[str, int]:
    """How many names stand below each module."""
    found: Counter[str] = Counter()
    for name in names:
        words = name.split(".")
        found.update(".".join(words[:n]) for n in range(1, len(words)))
    return found


def _root(name: str, lost: Mapping[str, int], members: Mapping[str, int]) -> str:
    """The outermost module around a name of which nothing is used; the name itself where there is none."""
    words = name.split(".")
    heads = (".".join(words[:n]) for n in range(1, len(words)))
    return next((head for head in heads if lost[head] == members[head]), name)


def _tree(pattern: str, names: Sequence[str]) -> _Choice:
    """The rule that drops all below a module, or else each of its tensors."""
    shape = Shape((f"{pattern}.{{rest...}}",), (), tuple(Move((name,), ()) for name in names))
    singles = tuple(_narrow(one, _drop(one), _drop) for one in shapes(shape.moves))
    return _Choice(_drop(shape), singles)


def _drop(shape: Shape) -> Written:
    return Written(Rule("drop", shape.old), shape.moves)


def _contents(links: Sequence[Link], casts: Mapping[str, Op], names: Sequence[str]) -> Iterator[Written]:
    """Rules that change contents in place: axes first, then shapes, then element types."""
    groups: dict[tuple[int, Rule], list[str]] = defaultdict(list)
    for link in links:
        for name in link.old:
            if link.axes == (1, 0):
                groups[0, Rule("transpose", ())].append(name)
            elif link.axes:
                groups[0, Rule("permute", (), options=(("axes", link.axes),))].append(name)
            if isinstance(link.op, Reshape):
                groups[1, Rule("reshape", (), options=(("shape", link.op.shape),))].append(name)
            if isinstance(cast := casts.get(name), Cast):
                groups[2, Rule("cast", (), options=(("dtype", cast.dtype.name),))].append(name)
    for (_, rule), some in sorted(groups.items(), key=lambda item: item[0][0]):
        for pattern, members in _sources(some, names):
            yield Written(
                replace(rule, sources=(pattern,)), tuple(Move((name,), (name,)) for name in members)
            )


def _sources(some: Sequence[str], names: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Patterns that match these names and no others of all; a name that none fits stands for itself."""
    wanted, left = set(some), dict.fromkeys(some)
    for folded in fold((name, None) for name in some):
        text = _pattern(folded.segments)
        if text is None:
            continue
        try:
            matcher = compile_pattern(parse_pattern(text), {}, frozenset())
        except PatternFault:
            continue
        hits = [name for name in names if matcher.match(name) is not None]
        if hits and wanted.issuperset(hits) and all(name in left for name in hits):
            yield text, tuple(hits)
            for name in hits:
                del left[name]
    for name in left:
        yield escape(name), (name,)


def _pattern(segments: tuple[tuple[str, ...], ...]) -> str | None:
    """Folded segments as a pattern: numbers in any layer, words that are listed."""
    letters = iter(LETTERS)
    texts = []
    for words in segments:
        if len(words) == 1:
            texts.append(escape(words[0]))
        elif all(word.isdecimal() for word in words):
            letter = next(letters, None)
            if letter is None:
                return None
            texts.append(f"{{{letter}}}")
        elif any(not word or set(word) & set("{}*\\| ") for word in words):
            return None
        else:
            texts.append("{" + "|".join(words) + "}")
    return ".".join(texts)


# --- text --------------------------------------------------------------------------------------------------------


def file_text(
    rules: Sequence[Written],
    links: Sequence[Link],
    about: str,
    questions: Sequence[Question] = (),
    missing: Sequence[str] = (),
) -> str:
    """The rules as a file, each with how sure it is and why as a comment; what is open stands at the end."""
    known = {name: link for link in links for name in link.old}
    lines = ["ckpttool: 1", f"about: {_quoted(about)}"]
    lines += ["rules:"] if rules else ["rules: []"]
    for one in rules:
        lines += [f"# {line}" for line in _reasons(one, known)]
        lines += rule_lines(one.rule)
    for question in questions:
        lines += ["", f"# open: {printable(question.why)}"]
        lines += [f"# {line}" for line in question.rules]
    if missing:
        lines += ["", "# nothing leads to:"]
        lines += [f"#   {printable(folded.text)}" for folded in fold((name, None) for name in missing)]
    return "\n".join(lines) + "\n"


def _reasons(one: Written, known: Mapping[str, Link]) -> list[str]:
    names = [name for move in one.moves for name in move.old]
    keys = plural(len(names), "key")
    links = list(dict.fromkeys(known[name] for name in names if name in known))
    if not links:
        return [f"nothing in the target stands for {'it' if len(names) == 1 else 'them'} ({keys})"]
    sure = all(link.confidence == "certain" for link in links)
    lowest = min(link.score for link in links)
    whys = list(dict.fromkeys(link.why for link in links))
    told = "; ".join(whys[:WIDTH]) + ("; …" if len(whys) > WIDTH else "")
    return [printable(f"{'certain' if sure else f'likely, {lowest:.2f}'} ({keys}): {told}")]


def rule_lines(rule: Rule) -> list[str]:
    """A rule as YAML, an item of a list."""
    fields: list[tuple[str, object]] = []
    many = rule.kind in ("concat", "stack")
    fields.append((rule.kind, list(rule.sources) if many else rule.sources[0]))
    if rule.kind == "rename":
        fields.append(("to", rule.targets[0]))
    elif rule.targets:
        fields.append(("into", rule.targets[0] if many else list(rule.targets)))
    fields += rule.options
    texts = [f"{key}: {_quoted(value)}" for key, value in fields]
    return [f"- {texts[0]}", *(f"  {text}" for text in texts[1:])]


def _quoted(value: object) -> str:
    """JSON, which YAML reads; words of letters alone stand as they are."""
    if isinstance(value, str) and value.isascii() and value.isalnum() and not value[0].isdecimal():
        return value
    if isinstance(value, tuple):
        value = list(value)
    return json.dumps(value, ensure_ascii=isinstance(value, str) and not value.isprintable())
