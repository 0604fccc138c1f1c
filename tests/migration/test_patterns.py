"""Patterns speak of whole names, segment by segment."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, strategies as st

from ckpttool.migration.arithmetic import ArithmeticFault, evaluate, parse_term, solve, term_text
from ckpttool.migration.matching import compile_pattern, write
from ckpttool.migration.patterns import PatternFault, escape, parse_pattern, resolve, without_given

NONE: Mapping[str, int] = {}


def renamed(source: str, target: str, name: str, numbers: Mapping[str, int] = NONE) -> str | None:
    """What a rename makes of one name; None where its pattern does not match."""
    names = frozenset(numbers)
    left = without_given(parse_pattern(source, names), dict(numbers))
    right = resolve(without_given(parse_pattern(target, names), dict(numbers)), left)
    binding = compile_pattern(left, numbers, frozenset()).match(name)
    return None if binding is None else write(right, binding, numbers)


def matches(pattern: str, name: str) -> bool:
    return compile_pattern(parse_pattern(pattern), NONE, frozenset()).match(name) is not None


@pytest.mark.parametrize(
    ("pattern", "fits", "not_these"),
    [
        ("h.{i}.weight", "h.10.weight", ["h.x.weight", "h.1.2.weight", "h.1.weight2", "a.h.1.weight", "h.1"]),
        ("{name}.weight", "fc_1.weight", ["a.b.weight", ".weight", "weight"]),
        ("**.weight_g", "a.b.weight_g", ["a.weight_gates", "a.xweight_g", "a.weight_g.b"]),
        ("**.weight_g", "weight_g", ["my_weight_g"]),
        ("module.**", "module.fc.weight", ["text_module.fc.weight", "modules.fc"]),
        ("layer{i}.conv", "layer3.conv", ["layer.conv", "layer3a.conv", "xlayer3.conv"]),
        ("in_proj_{weight|bias}", "in_proj_bias", ["in_proj_scale", "in_proj_weight2"]),
        ("{attn.c_attn|mlp.c_fc}.weight", "attn.c_attn.weight", ["attn.weight", "c_attn.weight"]),
        ("h.{3..11}.w", "h.11.w", ["h.2.w", "h.12.w", "h.03.w"]),
        ("a.*.b", "a.x.b", ["a.b", "a..b", "a.x.y.b"]),
        ("a_*", "a_", ["a_.b"]),
        ("a.{rest...}.b", "a.b", ["ab", "a.xb", "xa.b"]),
        ("a.{rest...}.b", "a.x.y.b", ["a.x.y"]),
        ("{}.{}", "1.2", ["1.a"]),
        (r"a\{i\}.\*", "a{i}.*", ["a1.x"]),
        ("{i}.{i}", "4.4", ["4.5"]),
        ("x.{i+1}", "x.3", ["x.0", "x.03"]),
        ("n", "n", ["nn", "n.n"]),
        ("h.{0..999}.w", "h.500.w", ["h.1000.w", "h.0500.w"]),
        ("line\n.{i}", "line\n.1", ["line.1", "line\n.1\n"]),
    ],
)
def test_anchored(pattern: str, fits: str, not_these: list[str]) -> None:
    assert matches(pattern, fits)
    assert [name for name in not_these if matches(pattern, name)] == []


@pytest.mark.parametrize(
    ("source", "target", "name", "result"),
    [
        ("stages.{i}.conv", "stages.{i+1}.conv", "stages.9.conv", "stages.10.conv"),
        ("stages.{i+1}.conv", "stages.{i}.conv", "stages.10.conv", "stages.9.conv"),
        ("linear_{i+1}.w", "{3*i}.w", "linear_2.w", "3.w"),
        ("{3*i}.w", "linear_{i+1}.w", "3.w", "linear_2.w"),
        ("{3*i}.w", "linear_{i+1}.w", "4.w", None),
        ("b.{i}", "b.{i//4}.{i%4}", "b.11", "b.2.3"),
        ("b.{i//4}.{i%4}", "b.{i}", "b.2.3", "b.11"),
        ("b.{i//4}.{i%4}", "b.{i}", "b.2.4", None),
        ("a.{rest...}.w", "b.{rest...}.w", "a.w", "b.w"),
        ("{x...}.a.{y...}", "{y...}.{x...}", "p.q.a.r", "r.p.q"),
        ("{wq|wk}.{weight|bias}", "{weight|bias}.{q|k}", "wk.bias", "bias.k"),
        ("{a|b}.{c|d}", "{c|d}.{a|b}", "a.d", "d.a"),
        ("l.{0..2}", "l.{1..3}", "l.2", "l.3"),
        ("**.{gamma|beta}", "**.{weight|bias}", "ln.beta", "ln.bias"),
        ("module.**", "**", "module.a", "a"),
        ("w*_{i}", "{i}.*", "wx_4", "4.x"),
        ("l.{}.attention", "layers.{}.attn", "l.3.attention", "layers.3.attn"),
        ("h.{i}", "h.{i}", "h.007", "h.007"),
    ],
)
def test_captures_return(source: str, target: str, name: str, result: str | None) -> None:
    assert renamed(source, target, name) == result


def test_given_values_stand_in_patterns() -> None:
    assert renamed("h.{i}.w", "h.{n_layer-1-i}.w", "h.2.w", {"n_layer": 12}) == "h.9.w"
    assert renamed("h.{n_layer-1-i}.w", "h.{i}.w", "h.9.w", {"n_layer": 12}) == "h.2.w"
    assert renamed("h.{n_layer-1-i}.w", "h.{i}.w", "h.12.w", {"n_layer": 12}) is None
    assert renamed("h.{n_layer}.w", "last.w", "h.12.w", {"n_layer": 12}) == "last.w"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a.{i", "without its counterpart"),
        ("a.i}", "without its counterpart"),
        ("a{rest...}.b", "needs dots around it"),
        ("a**", "needs dots around it"),
        ("{a|}", "empty"),
        ("{a|a}", "twice"),
        ("{layer+1}", "digits have names of one letter"),
        ("{5..1}", "does not count up"),
        ("{0..99999999}", "more than 10,000"),
        ("{i+}", "lacks a number or a name"),
        ("{i & 1}", "is no arithmetic"),
        ("**.**.**.**.**", "open-ended"),
        ("a" * 3000, "characters"),
    ],
)
def test_what_is_no_pattern(text: str, said: str) -> None:
    with pytest.raises(PatternFault, match=said):
        parse_pattern(text)


def test_a_quotient_alone_is_not_undone() -> None:
    with pytest.raises(PatternFault, match=r"\{i//2\}.*does not tell what i is"):
        compile_pattern(parse_pattern("b.{i//2}"), NONE, frozenset())


def test_a_capture_without_counterpart() -> None:
    with pytest.raises(PatternFault, match=r"'\{a\|b\}' in 'x.\{a\|b\}' has no counterpart"):
        resolve(parse_pattern("x.{a|b}"), parse_pattern("x.{a|b|c}"))


@given(st.text())
def test_an_escaped_name_matches_itself_alone(name: str) -> None:
    pattern = parse_pattern(escape(name))
    assert pattern.literal == name
    assert compile_pattern(pattern, NONE, frozenset()).match(name) == {}
    assert compile_pattern(pattern, NONE, frozenset()).match(name + "x") is None


@given(st.text(alphabet="{}|.*i+1-/%ab()\\ ", max_size=30))
def test_any_text_is_a_pattern_or_a_fault(text: str) -> None:
    try:
        pattern = parse_pattern(text)
        matcher = compile_pattern(pattern, NONE, frozenset())
    except PatternFault:
        return
    binding = matcher.match("a.1.b")
    if binding is not None:
        assert write(pattern, binding, NONE) == "a.1.b"


# --- arithmetic --------------------------------------------------------------------------------------------------


@st.composite
def terms(draw: st.DrawFn) -> str:
    """Arithmetic of i, in which i stands once under + - *."""
    text = "i"
    for _ in range(draw(st.integers(0, 4))):
        number = draw(st.integers(1, 9))
        text = draw(
            st.sampled_from([f"({text})+{number}", f"{number}*({text})", f"({text})-{number}", f"{number}-({text})"])
        )
    return text


@given(terms(), st.integers(0, 1000))
def test_what_is_computed_is_solved(text: str, value: int) -> None:
    term = parse_term(text)
    assert solve(term, "i", evaluate(term, {"i": value}), {}) == value
    assert parse_term(term_text(term)) == term


@given(terms(), st.integers(0, 1000))
def test_arithmetic_is_python_s(text: str, value: int) -> None:
    assert evaluate(parse_term(text), {"i": value}) == eval(text, {"i": value})


@pytest.mark.parametrize(
    ("text", "value"), [("7//2*2", 6), ("7-2-1", 4), ("2+3*4", 14), ("-3+5", 2), ("17%5", 2), ("-(2)*3", -6)]
)
def test_precedence(text: str, value: int) -> None:
    assert evaluate(parse_term(text), {}) == value
    assert evaluate(parse_term(term_text(parse_term(text))), {}) == value


@pytest.mark.parametrize("text", ["1//0", "1%0", "9" * 18 + "*" + "9" * 18, "x", "(" * 50 + "1" + ")" * 50])
def test_what_has_no_value(text: str) -> None:
    with pytest.raises(ArithmeticFault):
        evaluate(parse_term(text), {})
