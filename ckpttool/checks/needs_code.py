"""The file can only be loaded where the code of a project or framework is installed.

What: A pickle in the file holds objects of classes that are not plain data: the project's own model class, a
framework's callback or configuration object. One finding for each pickle names the classes and where they stand.

Why: ``torch.load`` with its default ``weights_only=True`` refuses the file until each class is allowed. A full unpickle
imports and runs that code, in the version that is installed then, which may differ from the one that wrote the file
or be missing altogether. The tensors themselves are readable without it, as ``inspect`` shows.

Cause: ``torch.save(model)`` instead of ``torch.save(model.state_dict())``; hyper-parameters kept as objects
(``argparse.Namespace`` is plain, OmegaConf is not); callbacks and loops of a training framework.

Remedy: If the code's author is trusted, load it with ``torch.serialization.safe_globals`` and the classes named here.
For the future, save state dicts and plain values. ``--trust MODULE.NAME`` silences a class you know.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._names import names_of, paths_of
from ckpttool.errors import printable
from ckpttool.model import Damage, GlobalUse
from ckpttool.rules import Context

NAMED = 8
"""Classes that a message names; the facts have more."""


@judges(__doc__, "CK202", "needs-code", "warning")
def needs_code(context: Context) -> Iterator[Damage]:
    """The classes of a project or a training framework, one damage for each pickle."""
    records: dict[str, list[GlobalUse]] = {}
    for use in names_of(context, "needs-code"):
        records.setdefault(use.where, []).append(use)
    for where, uses in records.items():
        yield _damage(context, where, uses)


def _damage(context: Context, where: str, uses: list[GlobalUse]) -> Damage:
    paths = paths_of(context, uses[:NAMED])
    named = [_named(use, paths.get((use.module, use.name), "")) for use in uses[:NAMED]]
    more = f" and {len(uses) - NAMED} more" if len(uses) > NAMED else ""
    what = "a class that is" if len(uses) == 1 else f"{len(uses)} classes that are"
    message = f"loading needs {what} not plain data: {', '.join(named)}{more}"
    return Damage("needs-code", printable(where), message, {"globals": [use.dotted for use in uses[:100]]})


def _named(use: GlobalUse, path: str) -> str:
    return printable(f"{use.dotted} (at {path})" if path else use.dotted)
