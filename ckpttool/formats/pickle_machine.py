"""The pickle machine: it interprets an explicit list of opcodes and can neither import nor call.

What a pickle asks for becomes data (``formats.stack``). The machine is total: it ends within its limits for
any bytes, reports where and why it stopped, and keeps what it had. It does not subclass ``pickle.Unpickler``,
whose C code reserves memory from numbers in the file before any limit of ours could act.

Source: CPython ``Lib/pickle.py`` and ``Lib/pickletools.py`` (protocols 0 to 5).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from ckpttool.formats.pickle_opcodes import TORCH
from ckpttool.formats.pickle_opcodes_other import OTHER, unknown
from ckpttool.formats.pickle_terms import (
    COPIES,
    FEW,
    MEMO_SLACK,
    NOT_MINE,
    CutShort,
    Malformed,
    Problem,
    Recogniser,
    Reducer,
    Stopped,
    nothing_known,
    u32,
    u64,
)
from ckpttool.formats.stack import CallOf, DictOf, ListOf, Named
from ckpttool.frozen import dataclass
from ckpttool.limits import DEFAULT, Limits

_OPCODES = {**TORCH, **OTHER}
_HANDLERS = tuple(_OPCODES.get(chr(code), unknown) for code in range(256))

# What nine of ten opcodes of a checkpoint are.
_PUT, _LONG_PUT, _GET, _INT1, _MARK, _TUPLE, _PAIR, _TEXT = b"qrhK(t\x86X"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run produced. ``root`` is None unless ``complete``; ``end`` is just past the last opcode.

    ``cut`` says that the run stopped because the data ended before the stream did.
    """

    root: Any
    complete: bool
    end: int
    protocol: int
    names: dict[tuple[str, str], Named]
    problems: list[Problem]
    foreign_opcodes: dict[str, int]
    cut: bool = False


class Machine:
    """One run over one pickle in ``data``, from ``start``.

    ``reducers`` maps a global to what its call means; ``persistent`` turns a persistent id into a value;
    ``recognise`` may do in one step what a run of opcodes comes to (``formats.dense_tensors``).
    Cost: about 0.3 µs an opcode. Raises nothing for bad input.
    """

    def __init__(
        self,
        data: bytes | memoryview,
        start: int = 0,
        *,
        reducers: dict[tuple[str, str], Reducer] | None = None,
        persistent: Callable[[Any], Any] | None = None,
        limits: Limits = DEFAULT,
        names: dict[tuple[str, str], Named] | None = None,
        recognise: Recogniser = nothing_known,
    ) -> None:
        self.data = data
        self.pos = start
        self.limits = limits
        self.reducers = reducers or {}
        self.persistent = persistent
        self.recognise = recognise
        self.names: dict[tuple[str, str], Named] = {} if names is None else names
        self.problems: list[Problem] = []
        self.foreign: dict[str, int] = {}
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.protocol = 0
        self.in_frame = False
        self.copied = 0
        self.cut = False

    # --- running ---------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Interpret until STOP, the end of the data, an impossible opcode or a limit."""
        try:
            self._loop()
        except Stopped:
            return self._outcome(self._result())
        except Malformed as error:
            self.cut = isinstance(error, CutShort)
            self._report(error.rule, str(error))
        except KeyError as error:
            self._report("pickle-malformed", f"memo slot {error} is read and was never written")
        except struct.error:
            self._ends_early()
        except IndexError:
            if self.pos >= len(self.data):
                self._ends_early()
            else:
                self._report("pickle-malformed", "an opcode finds too few values on the stack")
        except (UnicodeDecodeError, ValueError, OverflowError) as error:
            self._report("pickle-malformed", f"operand cannot be decoded: {error}"[:200])
        return self._outcome(NOT_MINE)

    def _loop(self) -> None:
        """Every opcode goes to its function, save eight that are done here: for each, a call costs more than itself."""
        data, handlers, memo, marks = self.data, _HANDLERS, self.memo, self.marks
        pos, stack, recognise = self.pos, self.stack, self.recognise
        left = self.limits.operations
        try:
            while left > 0:
                left -= 1
                op = data[pos]
                pos += 1
                if op == _LONG_PUT:
                    memo[u32(data, pos)[0]] = stack[-1]
                    pos += 4
                elif op == _INT1:
                    stack.append(data[pos])
                    pos += 1
                elif op == _GET:
                    stack.append(memo[data[pos]])
                    pos += 1
                elif op == _PUT:
                    memo[data[pos]] = stack[-1]
                    pos += 1
                elif op == _TEXT:
                    start = pos + 4
                    stop = start + u32(data, pos)[0]
                    if stop > len(data):
                        pos = start - 4
                        raise CutShort(f"a string of {stop - start} bytes, and {len(data) - start} are left")
                    pos = stop
                    stack.append(str(data[start:stop], "utf-8", "surrogatepass"))
                elif op == _MARK:
                    found = recognise(stack, data, pos, memo, left) if data[pos] == _MARK else None
                    if found is None:
                        marks.append(stack)
                        stack = []
                    else:
                        pos, operations = found
                        left -= operations
                elif op == _PAIR:
                    last = stack.pop()
                    stack[-1] = (stack[-1], last)
                elif op == _TUPLE and marks:
                    items = tuple(stack)
                    stack = marks.pop()
                    stack.append(items)
                else:
                    self.pos, self.stack = pos, stack
                    try:
                        handlers[op](self)
                    finally:  # STOP ends the last of several frames, by whose begin the stack was another one
                        pos, stack = self.pos, self.stack
        finally:
            self.pos, self.stack = max(self.pos, pos), stack
        raise Malformed(f"more than {self.limits.operations} operations", "over-limit")

    def _framed(self, end: int) -> None:
        """Interpret a frame's operations: one that crosses its end is read differently by load and loads."""
        data, limit = self.data, self.limits.operations
        while self.pos < end:
            at = self.pos
            self.pos = at + 1
            _HANDLERS[data[at]](self)
            if self.pos > end:
                self._report("pickle-malformed", f"an operand crosses the end of its frame at byte {end}")
            limit -= 1
            if limit < 0:
                raise Malformed(f"more than {self.limits.operations} operations", "over-limit")

    def _result(self) -> Any:
        if not self.stack:
            self._report("pickle-malformed", "STOP on an empty stack")
            return NOT_MINE
        if len(self.stack) > 1 or self.marks:
            left = len(self.stack) - 1 + len(self.marks)
            self._report("pickle-odd", f"{left} values are left on the stack at STOP")
        return self.stack[-1]

    def _outcome(self, root: Any) -> Outcome:
        last = max(self.memo, default=0)
        if last > len(self.memo) + MEMO_SLACK:
            self._report("pickle-odd", f"memo slot {last} in a memo of {len(self.memo)} slots")
        complete = root is not NOT_MINE
        end = min(self.pos, len(self.data))
        kept = root if complete else None
        return Outcome(kept, complete, end, self.protocol, self.names, self.problems, self.foreign, self.cut)

    def _ends_early(self) -> None:
        self.cut = True
        self._report("pickle-malformed", f"the pickle ends early, at byte {len(self.data)}, without STOP")

    def _report(self, rule: str, message: str) -> None:
        if len(self.problems) < 100:
            self.problems.append(Problem(rule, self.pos, message))

    def _foreign(self, opcode: str) -> None:
        self.foreign.setdefault(opcode, self.pos - 1)

    # --- operands --------------------------------------------------------------------------------------

    def _take(self, nbytes: int) -> bytes | memoryview:
        start = self.pos
        stop = start + nbytes
        if nbytes < 0:
            raise Malformed(f"an operand of {nbytes} bytes")
        if stop > len(self.data):
            raise CutShort(f"an operand of {nbytes} bytes, and {len(self.data) - start} are left")
        self.pos = stop
        return self.data[start:stop]

    def _line(self) -> str:
        return self._text(self.limits.line_bytes).decode("utf-8", "surrogateescape")

    def _text(self, most: int) -> bytes:
        """The bytes up to the next newline, of which protocol 0 makes a value's text."""
        window = 4096
        while True:
            text = bytes(self.data[self.pos : self.pos + min(window, most)])
            length = text.find(b"\n")
            if length >= 0:
                self.pos += length + 1
                return text[:length]
            if len(text) < min(window, most):
                raise CutShort(f"a text operand without a newline within {len(text)} bytes")
            if window >= most:
                raise Malformed(f"a text operand without a newline within {len(text)} bytes")
            window *= 2

    def _byte(self) -> int:
        value = self.data[self.pos]
        self.pos += 1
        return value

    def _uint4(self) -> int:
        value: int = u32(self.data, self.pos)[0]
        self.pos += 4
        return value

    def _uint8(self) -> int:
        value: int = u64(self.data, self.pos)[0]
        self.pos += 8
        return value

    def _pop_mark(self) -> list[Any]:
        if not self.marks:
            raise Malformed("an opcode needs a mark, and there is none")
        items = self.stack
        self.stack = self.marks.pop()
        return items

    # --- globals and calls -----------------------------------------------------------------------------

    def _named(self, module: Any, name: Any, at: int) -> Named:
        if type(module) is not str or type(name) is not str:
            raise Malformed("a global whose module or name is not a string", "pickle-type-confusion")
        found = self.names.get((module, name))
        if found is None:
            found = self.names[module, name] = Named(module, name, at)
        found.mentions += 1
        return found

    def _call(self, how: str, target: Any, args: Any) -> Any:
        if type(target) is not Named:
            raise Malformed(f"{how} of something that is not a global", "pickle-type-confusion")
        target.calls += 1
        if type(args) is not tuple:
            raise Malformed(f"{how} with arguments that are not a tuple", "pickle-type-confusion")
        self._charge(args)
        reducer = self.reducers.get((target.module, target.name)) if how == "REDUCE" else None
        if reducer is not None:
            value = reducer(args)
            if value is not NOT_MINE:
                return value
        target.odd_calls += 1
        target.largest = max(target.largest, _largest(args))
        return CallOf(how, target, args)

    def _charge(self, args: tuple[Any, ...]) -> None:
        # A memoized container may be the argument of every call of the file, and each call copies it.
        first = args[0] if args else None
        inner = first.items if type(first) is ListOf else first.flat if type(first) is DictOf else ()
        if len(args) + len(inner) > FEW:
            self.copied += len(args) + len(inner)
            if self.copied > COPIES * len(self.data):
                raise Malformed(f"calls with {self.copied} arguments in {len(self.data)} bytes", "over-limit")

    def _persist(self, pid: Any) -> Any:
        value = NOT_MINE if self.persistent is None else self.persistent(pid)
        if value is NOT_MINE:
            return CallOf("PERSID", self._named("", "persistent_load", self.pos - 1), (pid,))
        return value


def _largest(args: tuple[Any, ...]) -> int:
    """The largest integer among the arguments, tuples and lists one level down included."""
    largest = 0
    for arg in args[:64]:
        inner = arg.items if type(arg) is ListOf else arg
        for value in inner[:64] if type(inner) in (tuple, list) else (inner,):
            if type(value) is int:
                largest = max(largest, abs(value))
    return largest
