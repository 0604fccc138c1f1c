"""The one run of opcodes that most of a checkpoint consists of, recognised as a whole.

``torch.save`` spells the arguments of every dense tensor with the same thirty operations. A regular expression
takes them in one step where the machine takes thirty. What happens is what the machine would do, and wherever a
byte, a memo slot or a type is not as torch writes it the machine goes through the operations itself.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpttool.dtypes import PACKED_STORAGES, DType
from ckpttool.formats.stack import DictOf, Named, StorageRef
from ckpttool.formats.stand_ins import storage_dtype
from ckpttool.model import Tensor

if TYPE_CHECKING:
    from ckpttool.formats.torch_values import TorchValues

_GET, _PUT, _INT = rb"(h.|j.{4})", rb"(q.|r.{4}|)", rb"(?:K.|M..|J.{4})"
_SIZES = (
    rb"(\)|" + _INT + rb"\x85|" + _INT + rb"{2}\x86|" + _INT + rb"{3}\x87|\(" + _INT + rb"{4,64}t)" + _PUT
)
# Every alternative begins with an opcode of its own, so there is one way to match and no searching.
_ARGUMENTS = re.compile(
    rb"\(" + _GET + _GET + rb"X([\x01-\x14])\0\0\0([0-9]{1,20})" + _PUT + _GET
    + rb"(" + _INT + rb")(N?)t" + _PUT + rb"Q"
    + rb"(" + _INT + rb")" + _SIZES + _SIZES + rb"([\x88\x89])" + _GET + rb"\)R" + _PUT + rb"t" + _PUT + rb"R",
    re.DOTALL,
)  # fmt: skip

_PLAIN = 15
"""Operations of a match beside those of sizes, strides, the None of a view and memo slots."""

_INTEGER = re.compile(_INT, re.DOTALL)

_WIDE = struct.Struct("<xIxIxIxIxIxI")
"""Six memo slots as LONG_BINPUT spells them: those of all but the first few tensors of a file."""

_TRUE = b"\x88"


class Found(NamedTuple):
    """A tensor, the offset just past its REDUCE and the number of operations up to there."""

    tensor: Tensor
    stop: int
    operations: int


class DenseTensors:
    """Recognises the dense tensors of one pickle; ``values`` has the storages that they look into."""

    def __init__(self, values: TorchValues) -> None:
        self._values = values
        self._form: Any = object()  # the name itself, once it was met
        self._dtypes: dict[Named, DType | None] = {}
        self._numbers = _Numbers()
        self._sizes = _Sizes()

    def __call__(
        self, stack: list[Any], data: bytes | memoryview, at: int, memo: dict[int, Any], most: int
    ) -> Found | None:
        """The tensor that the top of the stack rebuilds from the arguments at ``at``, just past their MARK.

        None where they are not spelled exactly as torch spells them, or in more than ``most`` operations: then
        nothing has happened. Else memo, storages and calls are as the machine would have left them.
        """
        target = stack[-1] if stack else None
        if target is not self._form and not self._is_form(target):
            return None
        match = _ARGUMENTS.match(data, at)
        if match is None:
            return None
        (word, cls, length, key, put_key, device, count, none, put_pid, offset, size, put_size,
         stride, put_stride, grad, hooks, put_hooks, put_args) = match.groups()  # fmt: skip
        numbers = self._numbers
        gets = (numbers[word], numbers[cls], numbers[device], numbers[hooks])
        puts = (put_key, put_pid, put_size, put_stride, put_hooks, put_args)
        slots = _slots(puts)
        named = tuple([memo.get(slot) for slot in gets])
        dtype, numel = self._dtype(*named), numbers[count]
        (shape, size_steps), (step, stride_steps) = self._sizes[size], self._sizes[stride]
        operations = _PLAIN + len(slots) + size_steps + stride_steps + len(none)
        # A slot that is written before it is read would hold something else by then.
        overwritten = slots and min(slots) <= max(gets)
        if dtype is None or numel < 0 or overwritten or len(key) != length[0] or operations > most:
            return None
        text = key.decode("ascii")
        nbytes = numel * dtype.itemsize
        index = self._values.register(text, dtype, nbytes, named[2])
        first, needs_grad = numbers[offset], grad == _TRUE
        pid = (
            ("storage", named[1], text, named[2], numel, None)
            if none
            else ("storage", named[1], text, named[2], numel)
        )
        storage, backward = StorageRef(index, dtype, numel, nbytes), DictOf("OrderedDict")
        # Tuples of their own, as the file has them: what the memo holds may stand in the tree.
        sizes = (*shape,), (*step,)
        made = (text, pid, *sizes, backward, (storage, first, *sizes, needs_grad, backward))
        memo.update(zip(slots, made if len(slots) == 6 else _kept(puts, made), strict=True))
        target.calls += 1
        named[3].calls += 1
        return Found(Tensor(dtype, shape, step, first, index, needs_grad), match.end(), operations)

    def _is_form(self, target: Any) -> bool:
        known = (
            type(target) is Named and target.module == "torch._utils" and target.name == "_rebuild_tensor_v2"
        )
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


def _slots(puts: tuple[bytes, ...]) -> tuple[int, ...]:
    """The memo slots that are written."""
    joined = b"".join(puts)
    if len(joined) == _WIDE.size:
        return _WIDE.unpack(joined)
    return tuple([int.from_bytes(put[1:], "little") for put in puts if put])


def _kept(puts: tuple[bytes, ...], values: tuple[Any, ...]) -> list[Any]:
    """The values that are written; empty sizes are not, nor is anything by picklers without a memo."""
    return [value for put, value in zip(puts, values, strict=True) if put]


class _Numbers(dict[bytes, int]):
    """What an operation's operand means; each spelling is decoded once."""

    def __missing__(self, spelled: bytes) -> int:
        number = int.from_bytes(spelled[1:], "little", signed=spelled[:1] == b"J")
        self[spelled] = number
        return number


class _Sizes(dict[bytes, tuple[tuple[int, ...], int]]):
    """A tuple of integers and the number of operations that make it; each spelling is decoded once."""

    def __missing__(self, spelled: bytes) -> tuple[tuple[int, ...], int]:
        found = [
            int.from_bytes(one[1:], "little", signed=one[:1] == b"J") for one in _INTEGER.findall(spelled)
        ]
        marked = spelled[:1] == b"("
        self[spelled] = made = tuple(found), len(found) + 1 + marked
        return made
