"""Rules on an optimizer's state that did not come back as it was saved: lost, exchanged, cast, zero, in part. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ckpttool.determinism.cases import Case, Cause, listed, many
from ckpttool.determinism.trace import Save, component_of
from ckpttool.determinism.traits import Trait, narrowed, share_of_zeros

WHOLE = "save optimizer.state_dict() and load it after the model, before the first step"
EXACT = "save and load moments in the type they are kept in; torch casts what it loads to the type of the parameters"
IMPLEMENTATION = {"foreach", "fused", "capturable", "differentiable"}


def optimizer(case: Case) -> Cause | None:
    """The optimizer's state is missing, or is not what was saved."""
    odd = case.lost("optimizer")
    if not odd:
        return None
    if odd == ("optimizer.settings",):
        return _settings(case)
    state = case.resumed.state
    gone = [name for name in odd if state is None or name not in state.fields]
    if gone:
        return _gone(case, gone)
    if (cause := _partly_gone(case)) is not None:
        return cause
    if odd == ("optimizer.step",):
        message = f"the optimizer's own count of steps is not that of step {case.base}: its correction of bias is wrong"
        remedy = "restore the whole state dict, `step` included"
        return Cause("optimizer-steps", "optimizer", message, listed(odd), remedy)
    return _zero(case) or _permuted(case) or _narrowed(case) or _changed(case)


def _gone(case: Case, gone: list[str]) -> Cause:
    """Kinds of state that a resumed optimizer does not have at all."""
    kinds = ", ".join(name.partition(".")[2] for name in gone)
    unread = [name for name in _never_read(case.resumed.loads) if _is_state(name, gone)]
    if unread:
        message = (
            f"the optimizer starts without its state: {many(len(unread), 'tensor')} of it stand in the checkpoint and "
            "were never read, for the template to load into had none of them"
        )
        remedy = "make the template by get_optimizer_state_dict, or take a step before: a new optimizer has no state"
        return Cause("optimizer-unread", "optimizer", message, listed(unread), remedy)
    message = f"the optimizer starts without its state: {kinds} of step {case.base} were not restored"
    if case.saved is not None and case.saved.leaves and case.saved.live:
        held = _held(case.saved, gone)
        message += f", and {many(held, 'tensor')} of them can be found in the save" if held else ", nor saved"
    return Cause("optimizer-lost", "optimizer", message, listed(gone), WHOLE)


def _partly_gone(case: Case) -> Cause | None:
    """Parameters without any state, beside others that have theirs: another optimizer's, or another group's."""
    saved = {} if case.saved is None else case.saved.live
    now = {} if case.resumed.state is None else case.resumed.state.tensors
    gone = [name for name in _values(case) if name in saved and name not in now]
    owners = _owners(gone) - _owners([name for name in now if _is_moment(name)])
    if not owners:
        return None
    total = len(_owners([name for name in saved if _is_moment(name)]))
    message = (
        f"{len(owners)} of {many(total, 'parameter')} start without their state in the optimizer: {_kinds(gone)} of "
        f"step {case.base} were not restored"
    )
    remedy = "load the state of every optimizer, for all of its groups and parameters, before the first step"
    return Cause("optimizer-lost", "optimizer", message, listed(gone), remedy)


def _is_moment(name: str) -> bool:
    return component_of(name) == "optimizer" and not name.startswith("optimizer.settings")


def _never_read(loads: Collection[Save]) -> list[str]:
    """The names in checkpoints that no load of them asked for."""
    left: dict[str, list[str]] = {}
    for load in loads:
        left[load.path] = [name for name in left.get(load.path, load.unread) if name in load.unread]
    return [name for names in left.values() for name in names]


def _is_state(name: str, gone: list[str]) -> bool:
    return any(kind.partition(".")[2] in name.split(".") for kind in gone)


def _held(save: Save, gone: list[str]) -> int:
    """How many values of these kinds a save holds, under whatever names."""
    kinds = tuple(f"{kind}." for kind in gone)
    saved = set(save.leaves.values())
    return sum(name.startswith(kinds) and digest in saved for name, digest in save.live.items())


# --- what the moments are like ---------------------------------------------------------------------------------------


def _zero(case: Case) -> Cause | None:
    """Moments that are there and zero: all of them, those of one process, or rows of each."""
    now = case.odd_traits("optimizer")
    before = case.was(now)
    if not now or any(trait.is_zero for trait in before.values()):
        now = {name: trait for name, trait in now.items() if name not in before or not before[name].is_zero}
    if not now:
        return None
    if all(trait.is_zero for trait in now.values()):
        return _piece_of_a_rank(case, now) or _all_zero(now, before)
    rows = {name: trait.zero_rows for name, trait in now.items() if trait.zero_rows is not None}
    was_there = any(before[name].zero >= now[name].zero for name in rows if name in before)
    if not rows or len(rows) < sum(not trait.is_zero for trait in now.values()) or was_there:
        return None
    name, place = next(iter(rows.items()))
    message = (
        f"of each moment of {many(len(_owners(rows)), 'parameter')} rows are zero ({_short(name)}: rows {place[0]}–"
        f"{place[1] - 1} of {place[2]}): the piece of another process was not saved"
    )
    remedy = "save the pieces of every process, or gather them before one process saves"
    return Cause("optimizer-piece-lost", "optimizer", message, listed([*rows]), remedy)


def _piece_of_a_rank(case: Case, now: Mapping[str, Trait]) -> Cause | None:
    """One process's moments are zero, and those of another came back."""
    right = [peer.rank for peer in case.peers if not any(component_of(n) == "optimizer" for n in peer.boundary)]
    if not right:
        return None
    rank = case.resumed.rank
    pieces = [(name, trait.piece) for name, trait in now.items() if trait.piece is not None]
    where = ""
    if pieces:
        name, (first, end, total) = max(pieces, key=lambda pair: now[pair[0]].count)
        where = f" ({_short(name)}: rows {first}–{end - 1} of {total})"
    message = (
        f"the moments of {many(len(_owners(now)), 'parameter')} are zero in rank {rank}{where}, and right in rank "
        f"{listed(right)}: the piece of rank {rank} was not saved"
    )
    remedy = "save the pieces of every process, or gather them before one process saves"
    return Cause("optimizer-piece-lost", "optimizer", message, listed([*now]), remedy)


def _all_zero(now: Mapping[str, Trait], before: Mapping[str, Trait]) -> Cause:
    numbers = sum(trait.count - trait.zero for trait in before.values())
    were = f"; {numbers:,} numbers of them were not when they were saved" if numbers else ""
    message = f"{_kinds(now)} of {many(len(_owners(now)), 'parameter')} are there and zero{were}: state without content"
    remedy = "load the state after whatever makes it: a step without gradients leaves zeros, which are no state lost"
    return Cause("optimizer-zero", "optimizer", message, listed([*now]), remedy)


def _permuted(case: Case) -> Cause | None:
    """Each other's state, as their digests show."""
    values = _values(case)
    twin = next(((n, found) for n in values if (found := case.origin(n)) is not None), None)
    if twin is None or twin[1][0] != case.base or component_of(twin[1][1]) != "optimizer":
        return None
    name, (_, other) = twin
    message = f"parameters have each other's state: {name} equals the saved {other}"
    remedy = "keep the order of parameters, or save the state by name: torch matches by position alone"
    return Cause("optimizer-permuted", "optimizer", message, listed(values), remedy)


def _narrowed(case: Case) -> Cause | None:
    """Every moment that differs would survive a narrower type: it was in one on the way."""
    now = case.odd_traits("optimizer")
    before, total = case.was(now), len(_owners(_all(case)))
    if other := [(before[n].kind, now[n].kind) for n in now if n in before and before[n].kind != now[n].kind]:
        was, kind = other[0]
        message = f"{_kinds(now)} of {len(_owners(now))} of {many(total, 'parameter')} were {was}, and are {kind}"
        return Cause("optimizer-cast", "optimizer", f"{message}: cast on loading", listed([*now]), EXACT)
    kind = narrowed(now.values())
    if not kind:
        return None
    message = f"{_kinds(now)} of {len(_owners(now))} of {many(total, 'parameter')} hold nothing that {kind} could not"
    wide = next(iter(now.values())).kind
    if kind == "bfloat16":
        message += f": moments were cast on the way ({wide} → {kind} → {wide})"
        return Cause("optimizer-cast", "optimizer", message, listed([*now]), EXACT)
    message += ": saved in half precision"
    if told := _underflow(now, before):
        message += f"; {told} became 0"
    return Cause("optimizer-half", "optimizer", message, listed([*now]), EXACT)


def _underflow(now: Mapping[str, Trait], before: Mapping[str, Trait]) -> str:
    """By kind of moment the part that has become zero, where some has."""
    told = []
    for kind in dict.fromkeys(name.split(".")[1] for name in now):
        names = [name for name in now if name.split(".")[1] == kind and name in before]
        share = share_of_zeros(now[n] for n in names) - share_of_zeros(before[n] for n in names)
        told += [f"{share:.{0 if share > 0.1 else 1}%} of {kind}"] if share >= 0.0005 else []
    return " and ".join(told)


def _changed(case: Case) -> Cause:
    odd, values = case.lost("optimizer"), _values(case)
    message = f"the optimizer's state is not that of step {case.base}: {listed(odd)}"
    remedy = "compare the checkpoint with `ckpttool diff`; look for a cast, a lower precision, or a second load"
    return Cause("optimizer-changed", "optimizer", message, listed(values or odd), remedy)


def _values(case: Case) -> list[str]:
    return [name for name in case.odd_tensors("optimizer") if _is_moment(name)]


def _all(case: Case) -> list[str]:
    """The names of all moments that are there."""
    state = case.resumed.state
    return [] if state is None else [name for name in state.traits if component_of(name) == "optimizer"]


def _owners(names: Collection[str]) -> set[str]:
    """The parameters that these moments belong to."""
    return {_short(name).partition(".")[2] for name in names}


def _kinds(names: Collection[str]) -> str:
    return ", ".join(dict.fromkeys(name.split(".")[1] for name in names))


def _short(name: str) -> str:
    return name.partition(".")[2]


# --- settings --------------------------------------------------------------------------------------------------------


def _settings(case: Case) -> Cause:
    odd = [n for n in case.odd_tensors("optimizer") if n.startswith("optimizer.settings.")]
    saved = {} if case.saved is None else case.saved.live
    now = {} if case.resumed.state is None else case.resumed.state.tensors
    pairs = {n.rpartition(".")[2]: (saved.get(n), now.get(n)) for n in odd}
    told = [f"{name} was {was}, is {new}" for name, (was, new) in pairs.items()]
    if pairs and set(pairs) <= IMPLEMENTATION:
        was, new = (_implementation({name: pair[side] for name, pair in pairs.items()}) for side in (0, 1))
        message = f"the optimizer's implementation is another one ({was} → {new}): {listed(told)}; it rounds otherwise"
        remedy = "make the optimizer with the same options, or say foreach and fused; a checkpoint holds them too"
        return Cause("optimizer-implementation", "optimizer", message, listed(odd), remedy)
    message = f"the optimizer's settings are others after the resume: {listed(told) or 'a group differs'}"
    remedy = "make the optimizer with the same options; foreach, fused and capturable are options too"
    return Cause("optimizer-settings", "optimizer", message, listed(odd or case.boundary), remedy)


def _implementation(settings: Mapping[str, str | None]) -> str:
    """What torch takes, by its options: where nothing is said, foreach if it can."""
    on = [name for name in ("fused", "foreach", "capturable", "differentiable") if settings.get(name) == "True"]
    return on[0] if on else "one by one" if settings.get("foreach") == "False" else "torch's choice"
