"""What a resume finds in a checkpoint. What is not there is lacking: nothing is assumed.

``resumable``: weights, an optimizer's state, a counter, and what the framework refuses to resume without.
``exact``: besides that, the generators' states, the position in the data, the loss scaler where one
was in use,
the schedule where one was attached, the raw weights beside their average.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.frozen import dataclass
from ckpttool.layout import Optimizer, Readiness, Section
from ckpttool.model import Tensor, Value
from ckpttool.profiles.optimizers import has_state
from ckpttool.profiles.profile import Profile
from ckpttool.profiles.sections import has_content, of_role, weight_sections
from ckpttool.profiles.view import View
from ckpttool.profiles.writers import next_of
from ckpttool.tree import items

_BASE = ("weights", "optimizer", "counter")
_DEFAULT_RNG = ("python", "numpy", "torch")
_AMP_KEYS = frozenset({"amp", "use_amp", "fp16", "mixed_precision", "precision", "dtype"})
_AMP_VALUES = frozenset({"fp16", "float16", "16", "16-mixed", "amp_fp16", "half"})
_EMA_KEYS = frozenset({"ema", "model_ema", "use_ema"})


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that readiness is judged by."""

    view: View
    profile: Profile | None
    sections: tuple[Section, ...]
    optimizers: tuple[Optimizer, ...]
    rng: tuple[tuple[str, int], ...]

    def settings(self) -> Iterator[tuple[str, object]]:
        """The plain settings that the file records about its run."""
        for section in of_role(self.sections, "config"):
            for key, index in self.view.fields(section.index).items():
                node = self.view.node(index)
                if isinstance(node, Value):
                    yield key, node.value


def judge(evidence: Evidence) -> Readiness:
    """The highest level that holds, with all that is there and all that is not."""
    has = list(_parts(evidence))
    profile = evidence.profile
    needed = [*_BASE, *(() if profile is None else profile.needs)]
    blockers = [part for part in needed if part not in has and not _in_file(evidence, part)]
    wanted = [part for part in _wanted(evidence, has) if part not in has]
    lacks = tuple(dict.fromkeys([*blockers, *wanted]))
    if "weights" in blockers:
        return Readiness("none", tuple(has), lacks)
    if blockers:
        return Readiness("weights-only", tuple(has), lacks)
    following = next_of(evidence.view, profile)
    return Readiness("resumable" if lacks else "exact", tuple(has), lacks, following)


def _in_file(evidence: Evidence, part: str) -> bool:
    """Whether a part that is no section, such as MMEngine's message hub, stands at the top."""
    return part not in (*_BASE, "scheduler", "scaler") and evidence.view.has(part)


def _parts(evidence: Evidence) -> Iterator[str]:
    view, sections = evidence.view, evidence.sections
    average = of_role(sections, "ema")
    if weight_sections(view, sections) or average:
        yield "weights"
    if any(_stateful(view, optimizer) for optimizer in evidence.optimizers):
        yield "optimizer"
    if any(has_content(view, s.index) for s in of_role(sections, "scheduler")):
        yield "scheduler"
    if of_role(sections, "scaler"):
        yield "scaler"
    if average:
        yield "ema"
    if of_role(sections, "counters"):
        yield "counter"
    yield from sorted({f"rng: {kind}" for kind, _ in evidence.rng})
    if any(has_content(view, s.index) for s in of_role(sections, "data")):
        yield "data position"


def _stateful(view: View, optimizer: Optimizer) -> bool:
    groups = items(view.checkpoint, view.fields(optimizer.index).get("param_groups"))
    momentum = view.fields(groups[0]).get("momentum") if groups else None
    node = None if momentum is None else view.node(momentum)
    return has_state(optimizer.kind, optimizer.slots, node.value if isinstance(node, Value) else None)


def _wanted(evidence: Evidence, has: list[str]) -> Iterator[str]:
    """What an exact resume needs beside what any resume needs."""
    profile = evidence.profile
    rebuilt = () if profile is None else profile.recomputes
    if "scheduler" not in rebuilt and _was_scheduled(evidence):
        yield "scheduler"
    if _uses_scaler(evidence):
        yield "scaler"
    if "ema" in has and not weight_sections(evidence.view, evidence.sections):
        yield "raw weights"
    if any(key in _EMA_KEYS and value is True for key, value in evidence.settings()):
        yield "ema"
    kinds = _DEFAULT_RNG if profile is None else profile.rng_kinds
    yield from (f"rng: {kind}" for kind in kinds)
    if kinds and any(d.startswith("cuda") for d in {s.device for s in evidence.view.checkpoint.storages}):
        yield "rng: cuda"
    yield "data position"


def _was_scheduled(evidence: Evidence) -> bool:
    """A torch schedule writes ``initial_lr`` into every group that it drives."""
    view = evidence.view
    for optimizer in evidence.optimizers:
        for group in items(view.checkpoint, view.fields(optimizer.index).get("param_groups")):
            if "initial_lr" in view.fields(group):
                return True
    return False


def _uses_scaler(evidence: Evidence) -> bool:
    """Training in float16 needs a loss scaler; bfloat16 does not."""
    settings = dict(evidence.settings())
    if any(str(settings.get(k)).endswith(("bfloat16", "bf16")) for k in ("amp_dtype", "dtype", "precision")):
        return False
    for key, value in settings.items():
        if key in _AMP_KEYS and (value is True or (key != "amp" and str(value) in _AMP_VALUES)):
            return True
    return _half_weights(evidence)


def _half_weights(evidence: Evidence) -> bool:
    """Weights kept in float16 beside an optimizer: trained so, unless only the copy was made small."""
    if not evidence.optimizers:
        return False
    return any(
        isinstance(t := evidence.view.node(i), Tensor) and t.dtype.name == "float16"
        for optimizer in evidence.optimizers
        for slot in optimizer.slots[:64]
        for i in (() if slot.parameter is None else (slot.parameter,))
    )
