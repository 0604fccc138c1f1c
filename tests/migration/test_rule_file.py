"""Rules files are read strictly: every mistake is named with its line and what is allowed instead."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from ckpttool.dtypes import DTYPES
from ckpttool.errors import CkpttoolError
from ckpttool.expressions import Form, form_of
from ckpttool.migration import RuleError, RuleFile, dump, load, rewrite
from ckpttool.migration.patterns import escape
from ckpttool.migration.rule_nouns import Given, Guard, Rule, Stage
from ckpttool.migration.vocabulary import KINDS
from ckpttool.rewriting import Named, Names

EVERYTHING = r"""
ckpttool: 1
about: everything that the language has
source: ["https://example.org/a", "https://example.org/b"]
notes: what to know
from: "1.0"
to: "2"
given:
  n_layer: 12
  scale: 0.5
  prefix: backbone
  n_heads: {about: heads, from: [hyper_parameters.n_head, n_head], default: 8}
  width:
stages:
- - strip: [module, _orig_mod]
    wrap: module
- - drop: "h.{i}.attn.bias"
    optional: true
    restore: {zeros_like: "h.{i}.attn.c_attn.bias[0:1]"}
  - drop: {regex: '.*\.junk'}
    restore: nothing
  - rename: "h.{i}.{rest...}"
    to: "{prefix}.{n_layer-1-i}.{rest...}"
    when:
      {exists: "h.{i}.x", missing: [a, "b.**"], dtype: [float32, half], shape: [3*width, "*"],
       metadata: {meta.version: ["<2.10", null]}, version: {"h.{i}": 2}}
    reverse_when: always
  - rename: {regex: '^(\w+)\.x$'}
    to: '\1.y'
    reverse: {regex: '^(\w+)\.y$', to: '\1.x'}
  - split: "in_proj_{weight|bias}"
    into: ["q.{weight|bias}", "k.{weight|bias}"]
    sizes: [d0//2, -1]
  - unstack: experts.w
    into: "experts.{e}.w"
  - concat: ["a", "b"]
    into: "ab"
    sizes: any
    dim: -1
  - stack: "m.{e}"
    into: "m"
  - fold: [w, A, B]
    into: w
    by: lora
    scale: scale / 2
  - unfold: v
    into: [v.g, v.v]
    by: weight_norm
  - transpose: "**.t"
    dims: [0, 1]
  - permute: "q"
    view: [n_heads, 2, -1, d1]
    axes: [0, 2, 1, 3]
  - reshape: s
    shape: [1]
    from: []
  - squeeze: s2
    dim: 1
  - unsqueeze: s3
    dim: 0
  - slice: p
    dim: 1
    start: 1
  - slice: p
    into: p0
    stop: 1
  - roll: r
    shift: -1
  - reorder: o
    indices: [2, 0, 1]
  - repeat: rp
    times: [2, 1]
  - expand: ex
    shape: [4, -1]
  - sum: sm
    dim: 1
  - cast: "**"
    dtype: bfloat16
  - scale: sc
    by: 1/2
  - pad: wte
    to: 50304
    from: 50257
    value: mean
  - interpolate: i
    size: [8, 8]
    mode: bilinear
    antialias: false
  - resize_patches: kernel
    size: [8, 8]
    dims: [-2, -1]
  - resize_positions: pos
    grid: [8, 8]
    prefix: 1
  - add: z1
    ones_like: "w[:, 0]"
    dtype: float16
  - add: z2
    full: -inf
    shape: [2, width]
  - add: z3
    arange: 4
    shape: [1, -1]
  - add: "{m...}.num_batches_tracked"
    for: "{m...}.running_mean"
    full: 0
    shape: []
    dtype: int64
  - add: z4
    copy: w
  - tie: lm_head.weight
    to: wte.weight
    new: true
- - rename: "state_dict_ema.**"
    to: "state_dict.**"
    in: tree
"""


NAMES = Names(
    tuple(
        Named(name, Form(DTYPES["float32"], shape))
        for name, shape in [
            ("module.h.0.attn.bias", (4,)), ("in_proj_weight", (6, 2)), ("experts.w", (3, 2)), ("a", (2,)), ("b", (3,)),
            ("m.0", (2,)), ("m.1", (2,)), ("w", (4, 4)), ("q", (16, 4)), ("s", ()), ("p", (3, 5)), ("r", (4,)),
            ("wte", (50257, 2)), ("i", (2, 2, 4, 4)), ("x.running_mean", (4,)), ("sc", (2,)), ("o", (3,)),
        ]
    )
)  # fmt: skip


def rules_of(text: str) -> RuleFile:
    return load("ckpttool: 1\n" + text, "rules.yaml")


def plain(rules: RuleFile) -> object:
    """A file's content without the places where it stands."""
    return (
        [[(r.kind, r.sources, r.targets, r.options, r.regex, r.when, r.back, r.states_back, r.optional, r.scope)
          for r in stage.rules] for stage in rules.stages],
        rules.about, rules.given, rules.from_, rules.to, rules.origin, rules.notes,
    )  # fmt: skip


def test_everything_is_read_and_printed_again() -> None:
    rules = load(EVERYTHING, "rules.yaml")
    assert {rule.kind for rule in rules.rules} == KINDS.keys()
    assert plain(load(dump(rules), "rules.yaml")) == plain(rules)
    assert dump(load(dump(rules), "rules.yaml")) == dump(rules)


def test_what_stands_at_the_top() -> None:
    rules = load(EVERYTHING, "rules.yaml")
    assert (rules.from_, rules.to, rules.text) == ("1.0", "2", EVERYTHING)
    assert rules.given == (
        Given("n_layer", 12), Given("scale", 0.5), Given("prefix", "backbone"),
        Given("n_heads", 8, ("hyper_parameters.n_head", "n_head"), "heads"), Given("width"),
    )  # fmt: skip


def test_strips_and_scopes_are_stages_of_their_own() -> None:
    rules = rules_of("rules: [{rename: a, to: b}, {strip: module}, {drop: c}, {drop: d, in: tree}]")
    assert [[rule.kind for rule in stage.rules] for stage in rules.stages] == [
        ["rename"], ["strip"], ["drop"], ["drop"],
    ]  # fmt: skip
    assert [part.scope for part in rules.scopes()] == ["weights", "tree"]
    assert [len(part.stages) for part in rules.scopes()] == [3, 1]


def test_rules_know_their_lines() -> None:
    rules = rules_of("\nrules:\n- rename: a\n  to: b\n\n- drop: c\n")
    assert [rule.where for rule in rules.rules] == ["rules.yaml:4", "rules.yaml:7"]


MISTAKES = {
    "rulez: []": "rules.yaml:2 – a rules file has no 'rulez'; did you mean 'rules'?",
    "about: x": "rules.yaml:1 – a rules file has either 'rules', a list, or 'stages', a list of lists",
    "rules: {rename: a}": "rules.yaml:2 – a stage is a mapping; it is a list",
    "rules:\n- renam: a\n  to: b": "rules.yaml:3 – no rule is called 'renam'; did you mean 'rename'?",
    "rules:\n- rename: a\n  too: b": "rules.yaml:4 – 'rename' has no 'too'; did you mean 'to'?",
    "rules:\n- rename: a": "rules.yaml:3 – 'rename' lacks 'to'",
    "rules:\n- rename: a\n  to: b\n  drop: c": "rules.yaml:3 – one rule is both 'rename' and 'drop'; write two",
    "rules:\n- rename: a\n  rename: b": "rules.yaml:4 – 'rename' is given twice, first in line 3",
    "rules:\n- rename: [a, b]\n  to: c": "rules.yaml:3 – 'rename' is a list; it is a text",
    "rules:\n- transpose: a\n  dims: 1": "rules.yaml:4 – 'dims' is '1'; it is a list, as in [2, 3]",
    "rules:\n- roll: a\n  shift: x": (
        "rules.yaml:4 – 'shift' uses 'x', which is not under 'given'; sizes of the tensor are d0, d1, …"
    ),
    "rules:\n- cast: a\n  dtype: bfloat": (
        "rules.yaml:4 – 'dtype' is 'bfloat', no element type; did you mean 'bfloat16'?"
    ),
    "rules:\n- drop: a\n  optional: 1": "rules.yaml:4 – 'optional' is '1'; it is true or false",
    "rules:\n- drop: a\n  in: optimizer": "rules.yaml:4 – 'in' is 'optimizer'; it is weights or tree",
    "rules:\n- drop: a\n  when: {exist: b}": "rules.yaml:4 – 'when' has no 'exist'; did you mean 'exists'?",
    "rules:\n- drop: a\n  restore: {zeros: b}": "rules.yaml:4 – 'restore' has no 'zeros'; did you mean 'zeros_like'?",
    "rules:\n- rename: 'a.{i'\n  to: b": "rules.yaml:3 – 'a.{i' has a '{' without its counterpart",
    "rules:\n- rename: 'a.{i}'\n  to: 'b.{j}'": (
        "rules.yaml:3 – rename 'a.{i}' to 'b.{j}': {j} in 'b.{j}' is not in 'a.{i}'"
    ),
    "rules:\n- rename: {regex: '('}\n  to: b": (
        "rules.yaml:3 – this is no regular expression: missing ), unterminated subpattern at position 0"
    ),
    "rules:\n- rename: {regex: 'a'}\n  to: '\\2'": (
        "rules.yaml:3 – rename 'a' to '\\2': '\\2' asks for group 2, which there is not"
    ),
    "rules:\n- drop: 'h.{i}.b'\n  restore: {full: 0, shape: []}": (
        "rules.yaml:3 – drop 'h.{i}.b': its way back: nothing tells what {i} is: say 'for' which names there are"
    ),
    "rules:\n- rename: {regex: a}\n  to: b\n  reverse: {regex: b}": (
        "rules.yaml:3 – rename 'a' to 'b': its way back: 'reverse' lacks 'to'"
    ),
    "rules:\n- rename: {regex: a}\n  to: b\n  reverse: {regex: '(', to: c}": (
        "rules.yaml:3 – rename 'a' to 'b': its way back: this is no regular expression: missing ),"
        " unterminated subpattern at position 0"
    ),
    "rules:\n- fold: [a, b]\n  into: c\n  by: lorra": "rules.yaml:5 – 'by' is 'lorra'; did you mean 'lora'?",
    "rules:\n- add: a": (
        "rules.yaml:3 – add 'a': does not say what to make: one of zeros_like, ones_like, copy, full, arange"
    ),
    "rules:\n- add: a\n  full: 0": "rules.yaml:3 – add 'a': 'full' needs a 'shape' or a 'like'",
    "rules:\n- split: a\n  into: b": (
        "rules.yaml:3 – split 'a' to 'b': one name for several results needs one new number in it, as in"
        " 'experts.{e}.weight'; 'b' has 0"
    ),
    "given: {i: 3}\nrules: []": (
        "rules.yaml:2 – 'i' cannot be given: names have two or more letters, digits or _;"
        " one letter is a captured number, d0 to d9 are a tensor's sizes"
    ),
    "rules: &a [*a]": "rules.yaml:2 – anchors and aliases (& and *) are not read; repeat it",
    "rules: !!python/object:os.system []": (
        "rules.yaml:2 – tags (tag:yaml.org,2002:python/object:os.system) are not read"
    ),
    "rules: " + "[" * 100: "rules.yaml:2 – nested deeper than 12 levels",
    "rules: [": (
        "rules.yaml:2 – this is not YAML: while parsing a flow node expected the node content, but found '<stream end>'"
    ),
    "rules: \x07": "rules.yaml – this is not YAML: unacceptable character #x0007: special characters are not allowed",
    "? [a]\n: b": "rules.yaml:2 – a key is a list or a mapping; keys are text",
}


@pytest.mark.parametrize("text", MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes_are_named(text: str) -> None:
    with pytest.raises(RuleError) as caught:
        rules_of(text)
    assert str(caught.value) == MISTAKES[text]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "rules.yaml – the file is empty; it begins with 'ckpttool: 1'"),
        ("rules: []", "rules.yaml:1 – the version of the rule language is missing: begin with 'ckpttool: 1'"),
        ("ckpttool: 2", "rules.yaml:1 – 'ckpttool' is '2'; this ckpttool reads version 1 of the rule language"),
        ("[1]", "rules.yaml:1 – the file holds a list; it is a mapping with 'rules'"),
    ],
)
def test_files_that_are_none(text: str, message: str) -> None:
    with pytest.raises(RuleError) as caught:
        load(text, "rules.yaml")
    assert str(caught.value) == message


def test_a_file_of_any_size_is_refused_early() -> None:
    with pytest.raises(RuleError, match="rules files up to"):
        load("#" * (5 << 20), "rules.yaml")


def test_an_error_knows_file_line_and_rule() -> None:
    with pytest.raises(RuleError) as caught:
        rules_of("rules:\n- rename: 'a.{i}'\n  to: 'b.{j}'")
    assert (caught.value.file, caught.value.line) == ("rules.yaml", 3)
    assert caught.value.rule == "rename 'a.{i}' to 'b.{j}'"


def test_yes_and_no_are_words() -> None:
    assert rules_of("rules: [{rename: no, to: on}]").rules[0].targets == ("on",)


PIECES = [
    "rename", "drop", "to", "into", "split", "when", "exists", ": ", "\n", "- ", "  ", "{", "}", "[", "]", ",",
    '"', "'", "a", "{i}", "i+1", "\\1", "regex", "1", "-1", "null", "&x", "*x", "!t", "|", "#", "shape", "strip", "add",
    "zeros_like", "tie", "stages", "rules", "given", "ckpttool: 1\n", "dim", "permute", "axes", "fold", "by", "~",
]  # fmt: skip


@settings(max_examples=4 * settings().max_examples)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=40).map("".join))
def test_no_text_is_a_traceback(text: str) -> None:
    for start in ("", "ckpttool: 1\nrules:\n- ", "ckpttool: 1\n"):
        try:
            rules = load(start + text, "rules.yaml")
        except RuleError:
            continue
        assert plain(load(dump(rules), "rules.yaml")) == plain(rules)
        try:
            rules.inverse()
        except CkpttoolError:
            continue


@settings(max_examples=2 * settings().max_examples)
@given(st.data())
def test_no_damage_is_a_traceback(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(EVERYTHING)))
    to = data.draw(st.integers(at, min(len(EVERYTHING), at + 30)))
    middle = data.draw(st.sampled_from(PIECES) | st.text(max_size=4))
    try:
        rules = load(EVERYTHING[:at] + middle + EVERYTHING[to:], "rules.yaml")
        assert plain(load(dump(rules), "rules.yaml")) == plain(rules)
        rewrite(rules, NAMES, {"width": 4} if "width" in rules.names else {})
        rules.inverse()
    except RuleError:
        pass


def test_everything_does_not_fit_one_checkpoint() -> None:
    with pytest.raises(RuleError):
        rewrite(load(EVERYTHING, "rules.yaml"), NAMES, {"width": 4})


SHAPES = [(), (0,), (1,), (2, 3), (4, 4), (3, 0, 2), (1, 5, 8), (2, 1, 2, 2)]
OPTIONS = {
    "whole": st.integers(-5, 5).map(str),
    "wholes": st.lists(st.integers(-3, 3), max_size=4).map(str),
    "term": st.sampled_from(["0", "1", "-1", "7", "d0", "d1//2", "d0-9", "d0%d1", "9*9*d0"]),
    "terms": st.lists(st.sampled_from(["0", "1", "-1", "2", "d0", "d1", "d0*d1", "-7"]), max_size=4).map(
        lambda parts: "[" + ", ".join(parts) + "]"
    ),
    "ratio": st.sampled_from(["0", "2.5", "1/0", "1/3", "-1"]),
    "scalar": st.sampled_from(["0", "-1.5", "true", "inf", "nan", "mean", "word", "1e30"]),
    "flag": st.sampled_from(["true", "false"]),
    "dtype": st.sampled_from(["float16", "int8", "bool", "quint4x2", "complex64", "float8_e4m3fn"]),
    "name": st.sampled_from(["a", '"b[:, 0]"', '"c[0:9]"', '"b[x]"', "zz"]),
}


@st.composite
def any_rules(draw: st.DrawFn) -> str:
    """One rule of any kind with options of the right types and any values."""
    kind = KINDS[draw(st.sampled_from(sorted(KINDS)))]
    some = ["a", "b", "c", "e.{i}", "{name}", "**", "{a|b}"]
    names = st.sampled_from(some).map(lambda text: f'"{text}"')
    lists = st.lists(names, min_size=1, max_size=3).map(lambda parts: "[" + ", ".join(parts) + "]")
    fields = [f"{kind.name}: {draw(lists if kind.many == 'sources' else names)}"]
    if kind.target:
        fields.append(f"{kind.target}: {draw(lists if kind.many == 'targets' else names)}")
    for field in kind.fields:
        if field.choices and (field.required or draw(st.booleans())):
            fields.append(f"{field.name}: {draw(st.sampled_from(field.choices))}")
        elif field.takes in OPTIONS and (field.required or draw(st.booleans())):
            fields.append(f"{field.name}: {draw(OPTIONS[field.takes])}")
    return "{" + ", ".join(fields) + "}"


@settings(max_examples=3 * settings().max_examples)
@given(st.lists(any_rules(), min_size=1, max_size=3), st.data())
def test_no_tensor_is_a_traceback(rules: list[str], data: st.DataObject) -> None:
    dtypes = st.sampled_from(["float32", "int64", "bool", "quint4x2", "bfloat16"])
    names = Names(
        tuple(
            Named(name, Form(DTYPES[data.draw(dtypes)], data.draw(st.sampled_from(SHAPES))))
            for name in ("a", "b", "c", "e.0", "e.1")
        )
    )
    try:
        rewriting = rewrite(rules_of("rules: [" + ", ".join(rules) + "]"), names)
    except RuleError:
        return
    forms = {named.name: named.form for named in names.items if named.form is not None}
    for output in rewriting.outputs:
        form_of(output.expression, forms)


@pytest.mark.parametrize(
    "word", ["null", "true", "No", "~", "1", "1.5", "", "a b", "\x1b", "\ud800", "\U0001f600", "a'\\"]
)
def test_any_word_is_printed_so_that_it_reads_back(word: str) -> None:
    rule = Rule("rename", (escape(word),), (escape("b" + word),), when=Guard(metadata=(("path", (word, None)),)))
    rules = RuleFile((Stage((rule,)),), about=word, given=(Given("text", word, about=word),))
    again = load(dump(rules), "rules.yaml")
    assert plain(again) == plain(rules)
