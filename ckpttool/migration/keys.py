"""A state dict as a migration in Python sees it: described, not loaded; edited like a dict, computed when written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from ckpttool.draft import Made
from ckpttool.dtypes import DType, dtype_of
from ckpttool.errors import printable
from ckpttool.expressions import Applied, Expression, Form, Leaf, OpError, is_bijective, leaves
from ckpttool.frozen import dataclass
from ckpttool.migration.errors import MigrationError
from ckpttool.model import Scalar
from ckpttool.ops.called import Called, Function, as_array
from ckpttool.rewriting import Dropped, Names, Output, Rewriting, RuleUse

if TYPE_CHECKING:
    import numpy as np

Fetch = Callable[[Made], Any]
"""The numbers of a tensor, read now."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key's content: ``dtype`` as torch calls it and ``shape``; empty and None for what is no tensor.

    Nothing is read before ``numpy`` is called, or the checkpoint is written.
    """

    expression: Expression
    form: Form | None
    keys: Keys

    @property
    def dtype(self) -> str:
        return "" if self.form is None else self.form.dtype.name

    @property
    def shape(self) -> tuple[int, ...] | None:
        return None if self.form is None else self.form.shape

    def numpy(self) -> np.ndarray:
        """The numbers, read now; types that NumPy lacks as float32. Only of tensors that this step has not computed."""
        return self.keys.read(self)

    def map(
        self, function: Function, *, shape: tuple[int, ...] | None = None, dtype: str | None = None, moves: bool = False
    ) -> Key:
        """What a function makes of the tensor; see ``Keys.compute``."""
        return self.keys.compute(function, self, shape=shape, dtype=dtype, moves=moves)


class Keys(MutableMapping[str, Key]):
    """The keys of one state dict, in order. Rename with ``keys[new] = keys.pop(old)``, drop with ``del keys[name]``.

    What is made of a key stands at its place in the result, wherever it stands here.
    A value is a ``Key`` of this state dict, one that ``compute`` made, or an array, which becomes a new tensor. The
    step is called for each state dict in turn, averages too. ``plain`` are the checkpoint's plain values by their keys
    (``hyper_parameters.width``): those that are there may be set to another plain value.
    """

    def __init__(self, names: Names, where: str, fetch: Fetch | None = None) -> None:
        self._names = names
        self._where = where
        self._fetch = fetch
        self._items = {one.name: Key(Leaf(one.name), one.form, self) for one in names.items}
        self.plain: MutableMapping[str, Scalar] = Plain(names.facts, where)

    def __getitem__(self, name: str) -> Key:
        return self._items[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._items[name] = value if isinstance(value, Key) else self._constant(value)

    def __delitem__(self, name: str) -> None:
        del self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def find(self, pattern: str) -> list[str]:
        """The names that a shell pattern matches (``*`` crosses dots), as a list: so they can be edited meanwhile."""
        return [name for name in self._items if fnmatchcase(name, pattern)]

    def compute(
        self,
        function: Function,
        *inputs: Key,
        shape: tuple[int, ...] | None = None,
        dtype: str | None = None,
        moves: bool = False,
    ) -> Key:
        """A tensor that a function makes of others, called with an array for each when the tensor is written.

        So no more than one result and its inputs are in memory. ``shape`` and ``dtype`` are the first input's unless
        said. The optimizer's state of what is computed starts anew, unless ``moves`` says that the function only puts
        elements elsewhere. Raises ``MigrationError`` where the inputs are no numbers.
        """
        sizes = None if shape is None else tuple(int(size) for size in shape)
        op = Called(function, self._where, sizes, self._dtype(dtype), moves)
        forms = tuple(one.form for one in inputs)
        if None in forms:
            raise MigrationError(f"{printable(self._where)} – one of the inputs is no tensor")
        try:
            (form,) = op.forms(tuple(form for form in forms if form is not None))
        except OpError as error:
            raise MigrationError(f"{printable(self._where)} – {error}") from error
        return Key(Applied(op, tuple(one.expression for one in inputs)), form, self)

    def read(self, key: Key) -> np.ndarray:
        """The numbers of a key that holds what the checkpoint holds. Raises ``MigrationError`` for any other."""
        if not isinstance(key.expression, Leaf) or self._names.contents is None or self._fetch is None:
            raise MigrationError(f"{printable(self._where)} – what this step computes cannot be read in it")
        found: np.ndarray = self._fetch(self._names.contents(key.expression.name))
        return found

    def _dtype(self, name: str | None) -> DType | None:
        found = None if name is None else dtype_of(str(name).removeprefix("torch."))
        if name is not None and found is None:
            raise MigrationError(f"{printable(self._where)} – '{printable(str(name))}' is no element type")
        return found

    def _constant(self, value: Any) -> Key:
        name = str(getattr(value, "dtype", "")).removeprefix("torch.")
        array = as_array(value)
        return self.compute(lambda: array, shape=array.shape, dtype=name or array.dtype.name)


class Plain(MutableMapping[str, Scalar]):
    """Plain values by key. Values that are there may be replaced; ``edits`` are those that were."""

    def __init__(self, facts: Mapping[str, Scalar], where: str) -> None:
        self._facts = facts
        self._where = where
        self.edits: dict[str, Scalar] = {}

    def __getitem__(self, key: str) -> Scalar:
        return self.edits[key] if key in self.edits else self._facts[key]

    def __setitem__(self, key: str, value: Scalar) -> None:
        if key not in self._facts:
            raise MigrationError(f"{printable(self._where)} – the checkpoint has no plain value '{printable(key)}'")
        if value is not None and not isinstance(value, (bool, int, float, str)):
            raise MigrationError(
                f"{printable(self._where)} – '{printable(key)}' is set to a {type(value).__name__}; plain values are "
                "numbers, texts, True, False and None"
            )
        self.edits[key] = value

    def __delitem__(self, key: str) -> None:
        raise MigrationError(f"{printable(self._where)} – a plain value is dropped by a step with scope='tree'")

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)


def rewriting_of(names: Names, keys: Keys, use: RuleUse, *, as_listed: bool = False) -> Rewriting:
    """What has become of the names, as a rewriting by one rule: the step.

    What is made of other keys stands at the place of the first of them, and new tensors at the end, so that an
    optimizer's numbers keep their order; ``as_listed`` takes the order of ``keys`` as it is.
    """
    outputs = []
    for name, key in keys.items():
        same = key.expression == Leaf(name)
        outputs.append(Output(name, key.expression, () if same else (0,)))
    if not as_listed:
        places = {one.name: at for at, one in enumerate(names.items)}
        outputs.sort(key=lambda output: min((places[n] for n in output.inputs[:1]), default=len(places)))
    kept = {name for output in outputs for name in leaves(output.expression)}
    dropped = tuple(Dropped(one.name, (0,)) for one in names.items if one.name not in kept)
    computed = any(not is_bijective(output.expression) for output in outputs)
    hits = len(dropped) + sum(bool(output.rules) for output in outputs)
    lossy = use.lossy if dropped or computed else ""
    rule = RuleUse(use.text, use.where, hits, lossy)
    untouched = tuple(output.name for output in outputs if not output.rules)
    return Rewriting(tuple(outputs), dropped, (), (rule,), untouched)
