"""All keys carry segments that a wrapper put there.

What: Every key of a section has the same wrapper segments in it, such as `module.` or `_orig_mod.`.
The wrapper is named.

Why: A model that is not wrapped in the same way does not find its keys: `Missing key(s)` and
`Unexpected key(s)`, or, with
`strict=False`, nothing is loaded at all.

Cause: `state_dict()` of the wrapper was saved instead of that of the model inside it.

Remedy: Save `model.module.state_dict()` (or `model._orig_mod`). In this file, take these segments out
of the keys as whole
segments; do not replace the text `module.`, which damages names such as `text_module.fc`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ckpttool.checks import judges
from ckpttool.checks._training import WRAPPERS, sections, tensors_in
from ckpttool.model import Damage
from ckpttool.rules import Context


@judges(__doc__, "CK604", "wrapper-prefix", "info")
def wrapper_prefix(context: Context) -> Iterator[Damage]:
    """Sections of weights all of whose keys are wrapped, one finding each."""
    for section in sections(context, "weights"):
        keys = list(tensors_in(context, section))
        # AveragedModel puts its model under `module.` too, beside its counter.
        if not keys or "n_averaged" in keys:
            continue
        worn = wrappers_of(keys)
        if worn:
            makers = " and ".join(WRAPPERS[w] for w in worn)
            message = f"all {len(keys)} keys carry '{'.'.join(worn)}.' of {makers}"
            yield Damage("wrapper-prefix", section.key, message, {"segments": list(worn), "keys": len(keys)})


def wrappers_of(keys: Iterable[str]) -> tuple[str, ...]:
    """The wrapper segments that every key has, in the order of the first key; whole segments only."""
    common: tuple[str, ...] | None = None
    for key in keys:
        worn = tuple(part for part in key.split(".")[:-1] if part in WRAPPERS)
        common = worn if common is None else tuple(w for w in common if w in worn)
        if not common:
            return ()
    return tuple(dict.fromkeys(common or ()))
