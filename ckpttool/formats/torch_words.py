"""Storages and dense tensors as ``torch.save`` spells them, said into a pickle."""

from __future__ import annotations

from ckpttool.errors import WriteFailed, printable
from ckpttool.formats import pickle_spelling as spell
from ckpttool.formats.pickle_words import Words
from ckpttool.formats.torch_spelling import raw_range, rebuild, spelled_storages
from ckpttool.model import Checkpoint, Tensor

_UTILS = "torch._utils"
_HOOKS = ("collections", "OrderedDict")


class TorchWords:
    """The storages of one pickle. ``mentioned`` are those that it refers to, numbered by first mention.

    ``legacy`` adds the sixth item that persistent ids had before torch 1.6. With ``renumber`` the numbers
    stand in place of the storages' keys.
    """

    def __init__(self, checkpoint: Checkpoint, words: Words, *, legacy: bool, renumber: bool) -> None:
        self.mentioned: dict[int, int] = {}
        self._words = words
        self._source = checkpoint.source
        self._storages = checkpoint.storages
        self._spelled = spelled_storages(checkpoint, legacy=legacy)
        self._legacy = legacy
        self._renumber = renumber
        self._keys: dict[int, int] = {}
        self._known: dict[tuple[str, ...], tuple[bytes, bytes, bytes]] = {}

    def storage(self, tensor: Tensor) -> None:
        """Write a storage that stands in the tree itself."""
        assert tensor.storage is not None
        self._persistent(tensor.storage, raw_range(tensor, self._storages[tensor.storage]))

    def dense(self, tensor: Tensor, *, requires_grad: bool) -> None:
        """Write the call that rebuilds a strided tensor, not memoized."""
        assert tensor.storage is not None
        spelled, device = self._spelled[tensor.storage], self._storages[tensor.storage].device
        kind = (spelled.module, spelled.cls, device, tensor.form)
        known = self._known.get(kind)
        if known is not None and not spelled.untyped:
            self._dense_again(tensor, requires_grad, *known)
            return
        function = rebuild(tensor, spelled)
        self._dense_anew(tensor, requires_grad, function.rpartition(".")[2])
        if function.endswith("_v2") and ":" not in device:
            names, texts = self._words.names, self._words.texts
            slots = [names[_UTILS, "_rebuild_tensor_v2"], texts["storage"], names[spelled.module, spelled.cls]]
            start, *rest = map(spell.get, slots)
            hooks = spell.get(names[_HOOKS]) + spell.EMPTY_TUPLE + spell.REDUCE
            head = b"".join((start, spell.MARK, spell.MARK, *rest))
            self._known[kind] = (head, spell.get(texts[device]), hooks)

    def parameter(self, tensor: Tensor) -> None:
        """Write a Parameter whose fields say everything, not memoized."""
        words = self._words
        words.named(_UTILS, "_rebuild_parameter")
        self.dense(tensor, requires_grad=False)
        words.put()
        words.say(spell.constant(tensor.requires_grad))
        self._hooks()
        words.reduced(3)

    def _dense_anew(self, tensor: Tensor, requires_grad: bool, function: str) -> None:
        assert tensor.storage is not None
        words, untyped = self._words, self._spelled[tensor.storage].untyped
        words.named(_UTILS, function)
        words.say(spell.MARK)
        self._persistent(tensor.storage)
        words.say(spell.integer(tensor.offset))
        for sizes in (tensor.shape, tensor.stride):
            words.say(spell.integers(sizes))
            if sizes:
                words.put()
        if function != "_rebuild_tensor":
            words.say(spell.constant(requires_grad))
            self._hooks()
        if untyped:
            words.named("torch", tensor.dtype.name)
        words.reduced(4)  # or more: all of them stand behind the MARK

    def _dense_again(self, tensor: Tensor, requires_grad: bool, head: bytes, device: bytes, hooks: bytes) -> None:
        """The same, where every name has its slot: what nearly all of a checkpoint's tensors are."""
        assert tensor.storage is not None
        words, put = self._words, spell.put
        words.out.append(head)
        self._key(tensor.storage)
        slot = words.slots
        none = spell.NONE if self._legacy else b""
        numel = spell.integer(self._spelled[tensor.storage].numel)
        words.out += (device, numel, none, spell.TUPLE, put(slot), spell.PERSID, spell.integer(tensor.offset))
        slot += 1
        for sizes in (tensor.shape, tensor.stride):
            words.out.append(spell.integers(sizes))
            if sizes:
                words.out.append(put(slot))
                slot += 1
        grad = spell.constant(requires_grad)
        words.out += (grad, hooks, put(slot), spell.TUPLE, put(slot + 1), spell.REDUCE)
        words.slots = slot + 2

    def _hooks(self) -> None:
        self._words.empty_call(*_HOOKS)
        self._words.put()

    def _persistent(self, index: int, view: tuple[int, int] | None = None) -> None:
        """A storage's persistent id. A device's tag with an index is a string of its own each time."""
        words, storage, spelled = self._words, self._storages[index], self._spelled[index]
        words.say(spell.MARK)
        words.text("storage")
        words.named(spelled.module, spelled.cls)
        key = self._key(index)
        if ":" in storage.device:
            words.fresh(storage.device)
        else:
            words.text(storage.device)
        words.say(spell.integer(spelled.numel))
        if self._legacy:
            self._view(key, view)
        elif view is not None:
            why = f"storage '{printable(storage.key)}' stands in the tree in part, which is for torch before 1.6"
            raise WriteFailed(self._source, why)
        words.say(spell.TUPLE)
        words.put()
        words.say(spell.PERSID)

    def _key(self, index: int) -> str:
        """A storage's key, written: one string for each storage, and before 1.6 one for each mention."""
        words = self._words
        number = self.mentioned.setdefault(index, len(self.mentioned))
        key = str(number) if self._renumber else self._storages[index].key
        if index in self._keys and not self._legacy:
            words.say(spell.get(self._keys[index]))
        else:
            words.say(spell.text(key))
            self._keys[index] = words.put()
        return key

    def _view(self, key: str, view: tuple[int, int] | None) -> None:
        """``(key, offset, size)`` of a part of a storage, in elements."""
        if view is None:
            self._words.say(spell.NONE)
            return
        self._words.text(f"{key} [{view[0]}:{view[0] + view[1]}]")
        self._words.say(spell.integer(view[0]), spell.integer(view[1]), spell.closing(3))
        self._words.put()
