"""One pickle of a torch file, read into an arena: the steps that every pickle-based format shares."""

from __future__ import annotations

from dataclasses import field

from ckpttool.errors import printable
from ckpttool.formats.arena import Arena, shape_of_tree
from ckpttool.formats.dense_tensors import DenseTensors
from ckpttool.formats.numpy_arrays import lift
from ckpttool.formats.pickle_machine import Machine, Outcome
from ckpttool.formats.stack import Named
from ckpttool.formats.torch_values import TorchValues
from ckpttool.frozen import dataclass
from ckpttool.limits import Limits
from ckpttool.model import Damage, GlobalUse, Node, Storage


@dataclass(slots=True)
class Reading:
    """What has been read of one file so far; private to a reader, frozen into a ``Checkpoint`` at its end."""

    source: str
    limits: Limits
    arena: Arena = field(default_factory=Arena)
    damage: list[Damage] = field(default_factory=list)
    globals: list[GlobalUse] = field(default_factory=list)
    storages: list[Storage] = field(default_factory=list)

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(self.arena.nodes)

    def report(self, rule: str, where: str, message: str, hint: str = "", **facts: int | str | bool) -> None:
        self.damage.append(Damage(rule, where, message, facts, hint))


@dataclass(frozen=True, slots=True)
class Tree:
    """The root of one pickle in the arena (None where it could not be read to its end) and how it ended."""

    root: int | None
    outcome: Outcome
    values: TorchValues


def read_pickle(
    reading: Reading,
    data: bytes | memoryview,
    where: str,
    *,
    start: int = 0,
    base: int | None = 0,
    modules: bool = False,
) -> Tree:
    """Interpret the pickle in ``data`` from ``start`` into the reading's arena.

    ``base`` is the file offset of ``data[0]``, None where the file holds the pickle compressed. ``modules``
    allows persistent ids of module classes (torch before 1.6). Storages it mentions are
    appended to the reading's; the tensors of this tree index them from there.
    """
    values = TorchValues(first=len(reading.storages), modules=modules)
    machine = Machine(
        data, start, reducers=values.reducers, persistent=values.persistent, limits=reading.limits,
        recognise=DenseTensors(values),
    )  # fmt: skip
    outcome = machine.run()
    reading.storages.extend(values.storages)
    for problem in (*outcome.problems, *values.problems):
        at = f"{where} byte {problem.offset}" if problem.offset else where
        reading.report(problem.rule, at, printable(problem.message), offset=(base or 0) + problem.offset)
    note_globals(reading, outcome.names, where)
    _note_foreign(reading, outcome, where)
    root = None
    if outcome.complete:
        copied = bytes(data) if base is None else None
        root = reading.arena.add(outcome.root, reading.source, base or 0, copied)
        for rule, message in shape_of_tree(tuple(reading.arena.nodes), root, reading.limits):
            reading.report(rule, where, message)
    return Tree(root, outcome, values)


def note_globals(reading: Reading, names: dict[tuple[str, str], Named], where: str, *, beside: bool = False) -> None:
    """Record what the pickle asked to import."""
    reading.globals.extend(
        GlobalUse(n.module, n.name, where, n.offset, n.mentions, n.calls, n.odd_calls, n.largest, beside)
        for n in names.values()
    )


def _note_foreign(reading: Reading, outcome: Outcome, where: str) -> None:
    if outcome.foreign_opcodes:
        names = ", ".join(sorted(outcome.foreign_opcodes))
        message = f"opcodes that torch.load(weights_only=True) refuses: {names}"
        reading.report("foreign-opcode", where, message)


def lift_arrays(
    reading: Reading, storages: tuple[Storage, ...], record: str
) -> tuple[tuple[Node, ...], tuple[Storage, ...]]:
    """The finished nodes and storages, numpy arrays of the pickle in ``record`` turned into tensors."""
    lifted = lift(reading.arena.nodes, storages, record)
    reading.damage.extend(lifted.damage)
    return lifted.nodes, lifted.storages


def scan_rest(reading: Reading, data: bytes | memoryview, end: int, where: str) -> None:
    """Report bytes after STOP and note what a second pickle there would import."""
    rest = len(data) - end
    if rest <= 0:
        return
    reading.report("trailing-pickle", where, f"{rest} bytes follow the end of the pickle", bytes=rest)
    machine = Machine(data, end, limits=reading.limits)
    note_globals(reading, machine.run().names, f"{where} after its end", beside=True)
