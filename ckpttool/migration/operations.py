"""The operation that a rule asks for, on tensors of known forms."""

from __future__ import annotations

from collections.abc import Callable

from ckpttool import ops
from ckpttool.dtypes import DTYPES, DType, dtype_of
from ckpttool.expressions import Form, Op, OpError
from ckpttool.migration.arithmetic import ArithmeticFault
from ckpttool.migration.compiled import Compiled, term_of
from ckpttool.migration.rule_nouns import Option


class Asked:
    """The options of one rule, computed for one tensor."""

    def __init__(self, compiled: Compiled, form: Form) -> None:
        self.compiled, self.rule, self.form = compiled, compiled.rule, form

    def size(self, name: str) -> int | None:
        value = self.rule.option(name)
        return None if value is None else term_of(value, self.compiled.numbers, self.form.shape)

    def sizes(self, name: str) -> tuple[int, ...] | None:
        value = self.rule.option(name)
        if not isinstance(value, tuple):
            return None
        return tuple(term_of(part, self.compiled.numbers, self.form.shape) for part in value)

    def dim(self) -> int:
        return self.size("dim") or 0

    def ratio(self, name: str) -> float:
        return ratio_of(self.compiled, self.rule.option(name), self.form.shape)

    def image(self) -> dict[str, object]:
        """How pixels are resampled, where the rule says so."""
        return {name: self.rule.option(name) for name in ("mode", "antialias") if self.rule.has(name)}


def ratio_of(compiled: Compiled, value: Option, shape: tuple[int, ...] = ()) -> float:
    """A number, a given one, a size of the tensor, or one divided by another; 1 where there is none."""
    if value is None or isinstance(value, (int, float)):
        return 1 if value is None else value
    parts = [part.strip() for part in str(value).split("/")]
    sizes = {f"d{place}": size for place, size in enumerate(shape)}
    found = [compiled.settings.get(part, sizes.get(part, part)) for part in parts]
    try:
        numbers = [float(part) for part in found]
        return numbers[0] / numbers[1] if len(numbers) == 2 else numbers[0]
    except (ValueError, ZeroDivisionError) as error:
        raise ArithmeticFault(f"'{value}' has no value: {error}") from None


def _permute(asked: Asked) -> Op:
    axes, view = asked.sizes("axes") or (), asked.sizes("view")
    if view is None:
        return ops.Permute(axes)
    return ops.ViewPermute(view, axes, asked.sizes("shape") or asked.form.shape)


def _transpose(asked: Asked) -> Op:
    dims = asked.sizes("dims")
    if dims is None:
        if len(asked.form.shape) != 2:
            raise OpError(f"transpose without 'dims' takes 2 dimensions, this tensor has {len(asked.form.shape)}")
        return ops.Transpose()
    if len(dims) != 2:
        raise OpError(f"transpose swaps 2 dimensions; 'dims' has {len(dims)}")
    return ops.Transpose(*dims)


def _cast(asked: Asked) -> Op:
    return ops.Cast(dtype_from(asked.rule.option("dtype")))


def dtype_from(value: Option) -> DType:
    """An option that names an element type."""
    return dtype_of(str(value)) or DTYPES["float32"]


def _slice(asked: Asked) -> Op:
    step = asked.size("step")
    return ops.Slice(asked.dim(), asked.size("start"), asked.size("stop"), 1 if step is None else step)


def _pad(asked: Asked) -> Op:
    value = asked.rule.option("value")
    return ops.Pad(asked.dim(), asked.size("to") or 0, 0 if value is None else value)  # type: ignore[arg-type]


def _interpolate(asked: Asked) -> Op:
    return ops.Interpolate(asked.sizes("size") or (), **_pixels(asked))  # type: ignore[arg-type]


def _resize_patches(asked: Asked) -> Op:
    return ops.ResizePatches(asked.sizes("size") or (), **_pixels(asked))  # type: ignore[arg-type]


def _pixels(asked: Asked) -> dict[str, object]:
    dims = asked.sizes("dims")
    return asked.image() if dims is None else {**asked.image(), "dims": dims}


def _resize_positions(asked: Asked) -> Op:
    more = asked.image()
    if asked.rule.has("prefix"):
        more["prefix"] = asked.size("prefix")
    if asked.rule.has("old"):
        more["old"] = asked.sizes("old")
    return ops.ResizePositions(asked.sizes("grid") or (), **more)  # type: ignore[arg-type]


_CONTENT: dict[str, Callable[[Asked], Op]] = {
    "transpose": _transpose,
    "permute": _permute,
    "reshape": lambda asked: ops.Reshape(asked.sizes("shape") or ()),
    "squeeze": lambda asked: ops.Squeeze((asked.dim(),)),
    "unsqueeze": lambda asked: ops.Unsqueeze(asked.dim()),
    "slice": _slice,
    "roll": lambda asked: ops.Roll(asked.dim(), asked.size("shift") or 0),
    "reorder": lambda asked: ops.Reorder(asked.dim(), asked.sizes("indices") or ()),
    "repeat": lambda asked: ops.Repeat(asked.sizes("times") or ()),
    "expand": lambda asked: ops.Expand(asked.sizes("shape") or ()),
    "sum": lambda asked: ops.Sum(asked.dim()),
    "cast": _cast,
    "scale": lambda asked: ops.Scale(asked.ratio("by")),
    "pad": _pad,
    "interpolate": _interpolate,
    "resize_patches": _resize_patches,
    "resize_positions": _resize_positions,
}


_SETTLING = frozenset({"cast", "reshape", "pad", "expand", "interpolate", "resize_patches", "resize_positions"})
"""Kinds of rules that have nothing to do where the tensor is as they would make it."""


def content_op(compiled: Compiled, form: Form) -> Op | None:
    """What a content rule does to a tensor; None where the tensor is so already (cast, reshape, pad).

    A cast to a type of floats leaves integers and booleans alone, as ``Module.to`` does.
    Raises ``OpError`` or ``ArithmeticFault`` where the rule does not fit it.
    """
    asked = Asked(compiled, form)
    if compiled.rule.kind == "cast" and dtype_from(compiled.rule.option("dtype")).kind == "float" != form.dtype.kind:
        return None
    _check_old(asked)
    op = _CONTENT[compiled.rule.kind](asked)
    made = op.forms((form,))[0]
    return None if compiled.rule.kind in _SETTLING and made == form else op


def _check_old(asked: Asked) -> None:
    """What ``from`` says of a tensor must hold, since the way back goes by it."""
    stated, form, kind = asked.rule.option("from"), asked.form, asked.rule.kind
    if kind == "cast" and stated not in (None, form.dtype.name):
        raise OpError(f"'from' says {stated}, the tensor is {form.dtype.name}")
    if kind == "pad" and (size := asked.size("from")) is not None:
        dim = asked.dim()
        have = form.shape[dim] if -len(form.shape) <= dim < len(form.shape) else size
        if have not in (size, asked.size("to")):
            raise OpError(f"'from' says {size} along dimension {dim}, the tensor has {have}")
    shape = asked.sizes("from")
    if shape is not None and not _agree(shape, form.shape):
        raise OpError(f"'from' says ({_joined(shape)}), the tensor is ({_joined(form.shape)})")


def _agree(stated: tuple[int, ...], have: tuple[int, ...]) -> bool:
    """Whether sizes are the same; -1 stands for any."""
    return len(stated) == len(have) and all(s in (-1, h) for s, h in zip(stated, have, strict=True))


def parting_op(compiled: Compiled, form: Form) -> tuple[Op, int]:
    """What a rule cuts one tensor by, and into how many."""
    asked, count = Asked(compiled, form), len(compiled.targets)
    kind = compiled.rule.kind
    op: Op
    if kind == "unfold":
        op = ops.UnfoldWeightNorm(asked.size("dim") if compiled.rule.has("dim") else 0)
    elif kind == "unstack":
        op = ops.Unstack(asked.dim(), 0 if compiled.spread else count)
    elif (sizes := asked.sizes("sizes")) is not None:
        op = ops.Split(sizes=sizes, dim=asked.dim())
    else:
        sections = asked.size("sections")
        if sections is None and compiled.spread:
            raise OpError("split into counted names needs 'sizes' or 'sections'")
        op = ops.Split(sections=count if sections is None else sections, dim=asked.dim())
    made = len(op.forms((form,)))
    if not compiled.spread and made != count:
        raise OpError(f"{kind} makes {made} tensors and the rule has {count} names for them")
    return op, made


def joining_op(compiled: Compiled, forms: tuple[Form, ...]) -> Op:
    """What a rule joins several tensors by."""
    asked = Asked(compiled, forms[0])
    if compiled.rule.kind == "stack":
        return ops.Stack(asked.dim())
    if compiled.rule.kind == "fold":
        return _fold(asked, len(forms))
    _check_parts(asked, forms)
    return ops.Concat(asked.dim())


def _check_parts(asked: Asked, forms: tuple[Form, ...]) -> None:
    """Parts of different sizes are stated, so that the way back is known."""
    dim, rule = asked.dim(), asked.rule
    have = tuple(form.shape[dim] if -len(form.shape) <= dim < len(form.shape) else 0 for form in forms)
    if rule.option("sizes") == "any":
        return
    sizes = asked.sizes("sizes")
    if sizes is not None and not _agree(sizes, have):
        raise OpError(f"the parts are {_joined(have)} along dimension {dim}; 'sizes' says {_joined(sizes)}")
    if sizes is None and len(set(have)) > 1:
        raise OpError(
            f"the parts differ along dimension {dim}: {_joined(have)}; say sizes: [{', '.join(map(str, have))}],"
            " which the way back needs, or sizes: any to do without one"
        )
    sections = asked.size("sections")
    if sections is not None and sections != len(forms):
        raise OpError(f"there are {len(forms)} parts; 'sections' says {sections}")


def _joined(sizes: tuple[int, ...]) -> str:
    return ", ".join(map(str, sizes[:12])) + (", …" if len(sizes) > 12 else "")


def _fold(asked: Asked, count: int) -> Op:
    by = asked.rule.option("by")
    wanted = 3 if by == "lora" else 2
    if count != wanted:
        raise OpError(f"fold by {by} takes {wanted} tensors; the rule names {count}")
    if by == "weight_norm":
        return ops.FoldWeightNorm(asked.dim())
    if by == "multiply":
        return ops.Multiply()
    if by == "add":
        return ops.Add(asked.ratio("scale"))
    if by == "matmul":
        return ops.MatMul(asked.ratio("scale"))
    return ops.MergeLowRank(asked.ratio("scale"), bool(asked.rule.option("rows_last")))
