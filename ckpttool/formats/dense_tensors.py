"""The opcodes that most of a checkpoint consists of, recognised as a whole.

``torch.save`` spells the arguments of every dense tensor with the same thirty operations. A regular expression
takes them in one step where the machine takes thirty, and long state dicts are gone through column by column.
What happens is what the machine would do, and wherever a byte, a memo slot or a type is not as torch writes it the
machine goes through the operations itself.
"""

from __future__ import annotations

import re
import struct
from itertools import chain, repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

from ckpttool.dtypes import PACKED_STORAGES, DType
from ckpttool.formats.dense_patterns import NEXT, ONE, PLAIN, Numbers, Sizes
from ckpttool.formats.stack import DictOf, Named, StorageRef
from ckpttool.formats.stand_ins import storage_dtype
from ckpttool.model import Tensor

if TYPE_CHECKING:
    from ckpttool.formats.torch_values import TorchValues

Memo: TypeAlias = dict[int, Any]
Row: TypeAlias = tuple[bytes, ...]

LEAST, MOST = 4, 2000
"""Tensors that are worth going through by columns, and those that are at a time: picklers break dicts at 1000."""

_DOUBTS = 16
"""Runs that turn out to be none until no more are looked for: looking twice at every byte must stay rare."""

_LENGTH, _KEY, _COUNT, _OFFSET, _SIZE, _STRIDE, _GRAD, _HOOKS, _NAME_LENGTH, _NAME = (2, 3, 6, 8, 9, 11, 13, 14, 18, 19)
_HEAD = (0, 1, 5, 14, 21)
_PUTS = (4, 7, 10, 12, 15, 16, 17, 20)
"""Groups of ``NEXT``: operands; what is read from the memo; memo slots in the order in which they are written."""

_BETWEEN = 3
"""Operations between the arguments of two tensors beside the two memo slots: the name, GET, MARK."""

_TRUE = b"\x88"


class DenseTensors:
    """Recognises the dense tensors of one pickle; ``values`` has the storages that they look into."""

    def __init__(self, values: TorchValues) -> None:
        self._values = values
        self._form: Any = object()  # the name itself, once it was met
        self._dtypes: dict[Named, DType | None] = {}
        self._numbers = Numbers()
        self._sizes = Sizes()
        self._doubts = 0

    def __call__(
        self, stack: list[Any], data: bytes | memoryview, at: int, memo: Memo, most: int
    ) -> tuple[int, int] | None:
        """Rebuild the tensors that begin at ``at``, just past a MARK on the name of their function.

        Returns where that ends and how many operations it is. None where it is not spelled exactly as torch spells
        it, or takes more than ``most``: then nothing has happened. Else stack, memo, storages and calls are as the
        machine would have left them.
        """
        target = stack[-1] if stack else None
        if target is not self._form and not self._is_form(target):
            return None
        if self._doubts < _DOUBTS:
            rows, stop = _run(data, at)
            if len(rows) >= LEAST:
                operations = self._columns(rows, stack, memo, most)
                if operations:
                    return stop, operations
                self._doubts += 1
        match = ONE.match(data, at)
        return None if match is None else self._single(match, stack, memo, most)

    # --- one tensor ------------------------------------------------------------------------------------

    def _single(self, match: re.Match[bytes], stack: list[Any], memo: Memo, most: int) -> tuple[int, int] | None:
        (word, cls, length, key, put_key, device, count, none, put_pid, offset, size, put_size,
         stride, put_stride, grad, hooks, put_hooks, put_args) = match.groups()  # fmt: skip
        numbers = self._numbers
        gets = (numbers[word], numbers[cls], numbers[device], numbers[hooks])
        puts = (put_key, put_pid, put_size, put_stride, put_hooks, put_args)
        slots = [int.from_bytes(put[1:], "little") for put in puts if put]
        named: list[Any] = [memo.get(slot) for slot in gets]
        dtype, numel = self._dtype(*named), numbers[count]
        (shape, size_steps), (step, stride_steps) = self._sizes[size], self._sizes[stride]
        operations = PLAIN + len(slots) + size_steps + stride_steps + len(none)
        # A slot that is written before it is read would hold something else by then.
        overwritten = slots and min(slots) <= max(gets)
        if dtype is None or numel < 0 or overwritten or len(key) != length[0] or operations > most:
            return None
        text = key.decode("ascii")
        nbytes = numel * dtype.itemsize
        index = self._values.register(text, dtype, nbytes, named[2])
        first, needs_grad = numbers[offset], grad == _TRUE
        pid = ("storage", named[1], text, named[2], numel, *((None,) if none else ()))
        storage, backward = StorageRef(index, dtype, numel, nbytes), DictOf("OrderedDict")
        # Tuples of their own, as the file has them: what the memo holds may stand in the tree.
        sizes = (*shape,), (*step,)
        made = (text, pid, *sizes, backward, (storage, first, *sizes, needs_grad, backward))
        memo.update(zip(slots, [value for put, value in zip(puts, made, strict=True) if put], strict=True))
        stack[-1].calls += 1
        named[3].calls += 1
        stack[-1] = Tensor(dtype, shape, step, first, index, needs_grad)
        return match.end(), operations

    def _is_form(self, target: Any) -> bool:
        known = type(target) is Named and (target.module, target.name) == ("torch._utils", "_rebuild_tensor_v2")
        self._form = target if known else self._form
        return known

    def _dtype(self, word: Any, cls: Any, device: Any, hooks: Any) -> DType | None:
        """The storage's element type; None unless the memo has what torch puts there."""
        if type(word) is not str or word != "storage" or type(device) is not str or type(cls) is not Named:
            return None
        if type(hooks) is not Named or (hooks.module, hooks.name) != ("collections", "OrderedDict"):
            return None
        if cls not in self._dtypes:
            self._dtypes[cls] = None if cls.name in PACKED_STORAGES else storage_dtype(cls)
        return self._dtypes[cls]

    # --- many tensors ----------------------------------------------------------------------------------

    def _columns(self, rows: list[Row], stack: list[Any], memo: Memo, most: int) -> int:
        """What ``_single`` does, for all tensors and the names between them: the number of operations, 0 for None."""
        columns = tuple(zip(*rows, strict=True))
        number, look_up = self._numbers.__getitem__, self._sizes.__getitem__
        spelled = list(zip(*[columns[i] for i in _HEAD], strict=True))
        first = _first_slot(rows)
        heads = {gets: self._head(gets, first, memo) for gets in set(spelled)}
        numels = list(map(number, columns[_COUNT]))
        sizes, strides = list(map(look_up, columns[_SIZE])), list(map(look_up, columns[_STRIDE]))
        operations = (PLAIN + len(_PUTS) + _BETWEEN) * len(rows) - 1 + sum([n for _, n in chain(sizes, strides)])
        if None in heads.values() or min(numels) < 0 or not _whole(columns) or operations > most:
            return 0
        classes, devices, dtypes = zip(*[heads[gets] for gets in spelled], strict=True)
        keys, names = _texts(columns[_KEY]), _texts(columns[_NAME])
        nbytes = [numel * dtype.itemsize for numel, dtype in zip(numels, dtypes, strict=True)]
        indices = list(map(self._values.register, keys, dtypes, nbytes, devices))
        offsets, grads = list(map(number, columns[_OFFSET])), [grad == _TRUE for grad in columns[_GRAD]]
        shapes, steps = [shape for shape, _ in sizes], [step for step, _ in strides]
        own = [(*shape,) for shape in shapes], [(*step,) for step in steps]
        pids = zip(repeat("storage"), classes, keys, devices, numels)
        backward = [DictOf("OrderedDict") for _ in rows]
        storages = map(StorageRef, indices, dtypes, numels, nbytes)
        arguments = zip(storages, offsets, *own, grads, backward, strict=True)
        tensors = list(map(Tensor, dtypes, shapes, steps, offsets, indices, grads))
        made = zip(keys, pids, *own, backward, arguments, tensors, names, strict=True)
        memo.update(zip(range(first, first + len(rows) * len(_PUTS)), chain.from_iterable(made), strict=True))
        self._form.calls += len(rows)
        memo[number(columns[_HOOKS][0])].calls += len(rows)
        stack[-1:] = [*chain.from_iterable(zip(tensors, names, strict=True)), self._form]
        return operations

    def _head(self, gets: Row, first: int, memo: Memo) -> tuple[Any, Any, DType] | None:
        """The storage class, device and element type behind memo slots that were written before ``first``."""
        slots = [self._numbers[get] for get in gets]
        word, cls, device, hooks, form = [memo.get(slot) for slot in slots]
        dtype = self._dtype(word, cls, device, hooks)
        return None if dtype is None or form is not self._form or max(slots) >= first else (cls, device, dtype)


def _first_slot(rows: list[Row]) -> int:
    """The first memo slot that is written, if each one after it is the next; else 0, which comes before all."""
    puts = b"".join(chain.from_iterable(map(itemgetter(*_PUTS), rows)))
    slots = struct.unpack(f"<{'xI' * (len(puts) // 5)}", puts)
    return slots[0] if slots == tuple(range(slots[0], slots[0] + len(slots))) else 0


def _whole(columns: tuple[Row, ...]) -> bool:
    """Whether keys and names are as long as their lengths say."""
    lengths = [length for (length,) in struct.iter_unpack("<I", b"".join(columns[_NAME_LENGTH]))]
    short = b"".join(columns[_LENGTH])
    return bytes(map(len, columns[_KEY])) == short and list(map(len, columns[_NAME])) == lengths


def _texts(column: Row) -> list[str]:
    return b"\n".join(column).decode("ascii").split("\n")


def _run(data: bytes | memoryview, at: int) -> tuple[list[Row], int]:
    """The groups of tensors that follow each other from ``at`` on, and where the last one's successor has its MARK."""
    rows: list[Row] = []
    match = NEXT.match(data, at)
    while match is not None and len(rows) < MOST:
        rows.append(match.groups())
        at = match.end()
        match = NEXT.match(data, at + 1)
    return rows, at
