"""What traces say of tensors beside their digests, and what follows from that for the messages of a diagnosis."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from ckpttool.determinism.comparing import Departure
from ckpttool.determinism.diagnosis import Case, Cause, diagnose
from ckpttool.determinism.reading import read_trace
from ckpttool.determinism.trace import SCHEMA, Process, Save, Step
from ckpttool.determinism.traits import Trait, narrowed, read_traits, share_of_zeros

NUMBERS = st.integers(0, 1 << 40)
ROWS = st.none() | st.tuples(NUMBERS, NUMBERS, NUMBERS)
TRAITS = st.builds(
    Trait, st.sampled_from(["float32", "bfloat16"]), NUMBERS, NUMBERS,
    st.lists(st.sampled_from(["bfloat16", "float16"]), unique=True).map(tuple), ROWS, ROWS,
)  # fmt: skip


@given(st.dictionaries(st.text(max_size=8), TRAITS, max_size=4))
def test_traits_come_back_from_a_line(traits: dict[str, Trait]) -> None:
    line = json.loads(json.dumps({name: trait.facts() for name, trait in traits.items()}))
    assert read_traits(line) == traits


def test_a_trace_from_before_there_were_traits_has_none(tmp_path: Path) -> None:
    lines = [
        {"kind": "start", "schema": SCHEMA},
        {"kind": "state", "step": 0, "fields": {}},
        {"kind": "save", "step": 1},
    ]
    (tmp_path / "r0-1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (found,) = read_trace(tmp_path)
    assert found.state is not None
    assert (found.state.traits, found.state.values, found.saves[0].traits, found.saves[0].unread) == ({}, {}, {}, ())


def test_a_narrower_type_is_the_narrowest_that_holds_all() -> None:
    both, one, none = (Trait("float32", 64, fits=f) for f in (("bfloat16", "float16"), ("float16",), ()))
    assert narrowed([both]) == "bfloat16"
    assert narrowed([both, one]) == "float16"
    assert narrowed([both, none]) == ""
    assert narrowed([one, Trait("float32", 64, 64)]) == "float16"  # zeros fit anything, and say nothing
    assert narrowed([Trait("float32", 4, fits=("bfloat16",))]) == ""  # so few fit by chance
    assert share_of_zeros([Trait("float32", 10, 1), Trait("float32", 30, 3)]) == 0.1


# --- messages ---------------------------------------------------------------------------------------------------------

OLD = {"optimizer.exp_avg.w": Trait("float32", 200), "optimizer.exp_avg_sq.w": Trait("float32", 200, 10)}
KINDS = ("optimizer.exp_avg", "optimizer.exp_avg_sq")


def told(
    lost: tuple[str, ...], now: dict[str, Trait], values: tuple[dict[str, str], dict[str, str]] = ({}, {})
) -> Cause:
    """What is said of a state that came back so."""
    state = Step(4, dict.fromkeys(lost, "x"), traits=now, values=values[1])
    saves = (Save(4, "", "", traits=OLD, values=values[0]),)
    case = Case({}, {}, Process(0, 4, state=state), Departure(5, lost, None), lost, start=Process(0, None), saves=saves)
    return diagnose(case)[0]


def test_how_much_became_zero_is_said() -> None:
    half = {"optimizer.exp_avg.w": Trait("float32", 200, fits=("float16",))}
    half |= {"optimizer.exp_avg_sq.w": Trait("float32", 200, 24, fits=("float16",))}
    cause = told(KINDS, half)
    assert cause.name == "optimizer-half"
    assert "of 1 of 1 parameter hold nothing that float16 could not" in cause.message
    assert cause.message.endswith("7.0% of exp_avg_sq became 0")


def test_another_type_is_a_cast() -> None:
    cause = told(KINDS[:1], {"optimizer.exp_avg.w": Trait("bfloat16", 200)})
    assert cause.name == "optimizer-cast"
    assert "were float32, and are bfloat16" in cause.message


def test_rows_of_another_process_are_told() -> None:
    cause = told(KINDS, {name: Trait("float32", 200, 100, zero_rows=(32, 64, 64)) for name in OLD})
    assert cause.name == "optimizer-piece-lost"
    assert "rows 32–63 of 64" in cause.message


def test_what_was_zero_before_is_no_loss() -> None:
    now = {"optimizer.exp_avg_sq.w": Trait("float32", 200, 10, zero_rows=(0, 3, 64))}
    assert told(KINDS[1:], now).name == "optimizer-changed"


@pytest.mark.parametrize(
    ("part", "before", "after", "text"),
    [
        ("counters", {"counters.step": "7"}, {"counters.step": "6"}, "step was 7, is 6"),
        ("scheduler", {"scheduler.0.best": "0.5"}, {"scheduler.0.best": "inf"}, "best was 0.5, is inf"),
        ("scaler", {"scaler.0.scale": "4.0"}, {"scaler.0.scale": "2.0", "scaler.0.growth_interval": "40",
         "scaler.0._growth_tracker": "37"}, "scale was 4.0, is 2.0; next growth in 3 steps"),
    ],
)  # fmt: skip
def test_plain_values_are_told_with_both(part: str, before: dict[str, str], after: dict[str, str], text: str) -> None:
    assert text in told((part,), {}, (before, after)).message


# --- of live tensors --------------------------------------------------------------------------------------------------


def test_live_tensors() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from ckpttool.determinism.measuring import trait_of

    wide = torch.rand(64, 40) + 0.1
    assert trait_of(wide) == Trait("float32", 2560)
    assert trait_of(wide.bfloat16().float()) == Trait("float32", 2560, fits=("bfloat16", "float16"))
    assert trait_of((1e6 * wide).bfloat16().float()) == Trait("float32", 2560, fits=("bfloat16",))
    assert trait_of(wide.half().double()) == Trait("float64", 2560, fits=("float16",))
    assert trait_of(wide.bfloat16()) == Trait("bfloat16", 2560)
    assert trait_of(torch.zeros(3, 2)) == Trait("float32", 6, 6)
    late = wide.bfloat16().float()
    late[60, 3] = 1 / 3  # behind the first thousand
    assert trait_of(late) == Trait("float32", 2560)
    wide[32:64] = 0
    assert trait_of(wide) == Trait("float32", 2560, 1280, zero_rows=(32, 64, 64))
    assert trait_of(wide.t()) == Trait("float32", 2560, 1280)  # columns, and no row
    assert trait_of(torch.tensor(1.0)) is None
    assert trait_of(torch.arange(9)) is None
    assert trait_of(torch.zeros(0)) is None
    assert trait_of(torch.zeros(4).to(torch.float8_e4m3fn)) is None


def test_plain_values_of_nested_parts() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    from ckpttool.determinism.measuring import plain_values

    state = {
        "best": None,
        "rates": [0.1, 0.2],
        "python": (3, tuple(range(600)), None),
        "deep": [{"n": 1}],
        "t": object(),
    }
    found = dict(plain_values("x", state))
    assert found == {
        "x.best": "None",
        "x.rates": "[0.1, 0.2]",
        "x.python.0": "3",
        "x.python.2": "None",
        "x.deep.0.n": "1",
    }


@pytest.mark.filterwarnings("ignore")
def test_what_a_distributed_load_did_not_ask_for(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import torch.distributed.checkpoint as dcp

    from ckpttool.determinism.measuring import unread

    whole = {"model": {"w": torch.ones(2)}, "optimizer": {"0": {"exp_avg": torch.ones(2)}}}
    dcp.save(whole, checkpoint_id=tmp_path, no_dist=True)
    assert unread(whole, str(tmp_path)) == []
    assert unread({"model": {"w": torch.ones(2)}, "optimizer": {}}, str(tmp_path)) == ["optimizer.0.exp_avg"]
    assert unread(whole, str(tmp_path / "nothing")) == []
