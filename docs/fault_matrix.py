"""Every fault of the trainer against the check: ``docs/reference/fault-matrix.md`` is made by this script.

python docs/fault_matrix.py                    run all, write the page
python docs/fault_matrix.py --check NAME ...   run these (all where none is named), compare with the page
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from dataclasses import astuple, dataclass
from pathlib import Path

from ckpttool.determinism.branches import Reference
from ckpttool.determinism.check import Verdict, Wishes, check, reference_of
from ckpttool.determinism.running import Command, Launchers

PAGE = Path(__file__).parent / "reference" / "fault-matrix.md"
STEPS, SAVED = 14, 7  # five batches to an epoch: the save lies within the second, and the end in the third

KINDS: dict[str, str] = {
    "digits": "--task digits --batch-size 256 --warmup 3",
    "twice": "--task digits --batch-size 256 --warmup 3 --save-every 4",
    "gpt": "--task gpt --batch-size 4",
    "tabular": "--task tabular --batch-size 64 --eval-every 2",
    "fp16": "--task tabular --batch-size 64 --precision fp16 --schedule cosine",
    "accumulate": "--task tabular --batch-size 64 --accumulate 2 --schedule cosine",
    "alone": "--task tabular --batch-size 64 --dropout 0 --schedule cosine",
    "ddp": "--task tabular --batch-size 64 --dropout 0.2 --schedule cosine --parallel ddp",
    "fsdp2": "--task tabular --batch-size 64 --schedule cosine --parallel fsdp2",
}
NEEDS = {
    "second-resume": "twice", "untied": "gpt", "compiled": "tabular", "plateau-lost": "tabular", "scaler-lost": "fp16",
    "growth-tracker-lost": "fp16", "gradients-lost": "accumulate", "rank-rng-copied": "ddp",
    "rank-rng-lost": "ddp", "rank-moments-lost": "fsdp2", "rank-order-copied": "ddp", "data-changed": "tabular",
    "world-size-changed": "alone",
}  # fmt: skip
SHARED = f"--quiet --steps 40 --save-every {SAVED} --eval-every 5 --keep-best 0 --log-every 50 --out {{out}}"
IGNORED = ("config.inject", "environment.revision", "digests.about")
"""What checkpoints say of the fault itself and of the code's revision, which may move while this runs."""

FROM_THE_START = ("save", "evaluate", "start", "every order", "saved")
"""Times at which faults strike that an uninterrupted run feels too."""


@dataclass(frozen=True)
class Row:
    """What the check says of a fault: a line of the first table, and the sentence of the second."""

    status: str
    component: str
    cause: str
    seen: str
    levels: str
    says: str = ""

    @property
    def lasting(self) -> tuple[str, ...]:
        """What is the same on every machine: numbers in the sentence are not."""
        return (*astuple(self)[:-1], re.sub(r"\d[\d.,e+-]*", "#", self.says))


class Matrix:
    """Runs faults; the uninterrupted run of each kind is made once."""

    def __init__(self, launchers: Launchers, work: Path) -> None:
        self.launchers, self.work = launchers, work
        self.known: dict[str, tuple[Command, Reference]] = {}

    def command(self, kind: str, inject: str = "") -> Command:
        words = [*SHARED.split(), *KINDS[kind].split(), *(["--inject", inject] if inject else [])]
        several = "-m torch.distributed.run --standalone --nproc-per-node 2".split() if "--parallel" in words else []
        return Command((sys.executable, *several, "-m", "ckpttool.trainer", *words), timeout=300)

    def wishes(self, when: str) -> Wishes:
        rhythm = {"without_saves": ("--save-every", "3")} if when == "save" else {}
        rhythm |= {"without_evaluation": ("--eval-every", "4")} if when == "evaluate" else {}
        cuts = 3 if when == "second resume" else 1
        return Wishes(
            STEPS, cuts=cuts, power=False, prove=False, shrink=False, level="artifact", ignore=IGNORED, **rhythm
        )

    def verdict(self, name: str, when: str) -> Verdict:
        kind = NEEDS.get(name, "digits")
        command, reference = self.command(kind, name), None
        if when not in FROM_THE_START:
            reference = self.reference(kind)
        return check(command, self.wishes(when), self.work / (name or f"control-{kind}"), launchers=self.launchers,
                     reference=reference)  # fmt: skip

    def reference(self, kind: str) -> Reference:
        if kind not in self.known:
            found = reference_of(self.launchers, self.command(kind), self.wishes(""), self.work / f"kind-{kind}")
            assert not isinstance(found, Verdict), found
            self.known[kind] = found
        return self.known[kind][1]


def row(found: Verdict) -> Row:
    """The verdict in a few words."""
    cause = found.causes[0] if found.causes else None
    component = cause.component if cause else found.departure.component if found.departure else "recovery"
    broken = ", ".join(level.name for level in found.levels if level.state == "broken") or "–"
    if found.status == "exact":
        component = "–"
    says = "" if found.status == "exact" else found.message if cause is None else cause.message
    return Row(found.status, component, cause.name if cause else "–", seen(found), broken, says.replace("|", "/"))


def seen(found: Verdict) -> str:
    """The earliest point at which it shows."""
    if found.status == "exact":
        return "–"
    if found.status == "not-reproducible":
        return "two uninterrupted runs"
    if not found.branches:
        return "between steps, uninterrupted"
    worst = next((b for b in found.branches if b.broken), found.branches[0])
    if worst.failure:
        return "the resume"
    if worst.boundary:
        return "the load"
    if worst.departure is not None and worst.departure.component != "artifact":
        return f"step +{worst.departure.step - worst.cut[-1] + (worst.cut[-1] - base_of(worst)) - 1}"
    return "the next save"


def base_of(branch: object) -> int:
    bases = [p.base for r in reversed(branch.ran) for p in r.trace if p.base]  # type: ignore[attr-defined]
    return bases[0] if bases else 0


def page(rows: dict[str, Row]) -> str:
    from ckpttool.trainer.faults import FAULTS

    faults = {name: found for name, found in rows.items() if name in FAULTS}
    caught = sum(found.status != "exact" for found in faults.values())
    lines = [
        "<!-- Written by docs/fault_matrix.py from runs. Do not edit. -->", "", "# Faults and verdicts", "",
        "Every fault of `ckpttool train --inject NAME` ([what they are](faults.md)), and what `ckpttool determinism",
        "check` says of it: one real SIGKILL after step 8, a resume from the save of step 7, steps up to 14 compared.",
        "*Seen* is the first point at which anything shows: the load, the n-th step after it, the next save.",
        f"{caught} of {len(faults)} faults are caught; the controls, without a fault, are exact.",
        "What the causes mean: [](causes.md).", "",
        "| fault | stands for | in the loss | status | component | cause | seen | levels broken |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, found in rows.items():
        fault = FAULTS.get(name)
        about = (fault.causes, fault.loss) if fault else ("nothing", "–")
        title = f"`{name}`" if fault else f"none, {name.removeprefix('control ')}"
        cells = (title, *about, found.status, found.component, found.cause, found.seen, found.levels)
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "## In a sentence",
        "",
        "What the check says of each. Numbers in it are of the machine that ran it.",
        "",
    ]
    lines += ["| fault | message |", "|---|---|", *(f"| `{name}` | {found.says} |" for name, found in faults.items())]
    return "\n".join(lines) + "\n"


def read_page() -> dict[str, Row]:
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.read_text("utf-8").splitlines()]
    said = {cells[0].strip("`"): cells[1] for cells in table if len(cells) == 2}
    found = {}
    for cells in table:
        if len(cells) == 8 and cells[0] not in ("fault", "---"):
            name = cells[0].strip("`") if cells[0].startswith("`") else f"control {cells[0].removeprefix('none, ')}"
            found[name] = Row(*cells[3:], said.get(name, ""))
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    from ckpttool.trainer.faults import FAULTS

    wanted = given.names or [*FAULTS, *(f"control {kind}" for kind in KINDS)]
    rows: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as temporary, Launchers() as launchers:
        matrix = Matrix(launchers, given.keep or Path(temporary))
        for name in wanted:
            start = time.monotonic()
            if name in FAULTS:
                found = matrix.verdict(name, FAULTS[name].when)
            else:
                kind = name.removeprefix("control ")
                found = check(matrix.command(kind), matrix.wishes(""), matrix.work / f"control-{kind}",
                              launchers=launchers, reference=matrix.reference(kind))  # fmt: skip
            assert not any("inject –" in line for line in found.lines), (name, found.lines)
            rows[name] = row(found)
            print(
                f"{name}: {rows[name]} ({time.monotonic() - start:.1f} s) {found.message}", file=sys.stderr, flush=True
            )
    if not given.check:
        PAGE.write_text(page({**(read_page() if given.names else {}), **rows}), encoding="utf-8")
        return 0
    expected = read_page()
    wrong = {
        name: (was, found)
        for name, found in rows.items()
        if (was := expected.get(name)) is None or was.lasting != found.lasting
    }
    for name, (was, now) in wrong.items():
        print(f"{name}: the page says {was}, the check says {now}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
