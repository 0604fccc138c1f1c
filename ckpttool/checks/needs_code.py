"""The file can only be loaded where the code of a project or framework is installed.

What: A pickle in the file holds objects of classes that are not plain data: the project's own model class, a
framework's callback or configuration object. The finding names each class and where in the tree it stands.

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
from ckpttool.checks._names import names_of, statements
from ckpttool.model import Damage
from ckpttool.rules import Context


@judges(__doc__, "CK202", "needs-code", "warning")
def needs_code(context: Context) -> Iterator[Damage]:
    """Every class of a project or a training framework."""
    what = "loading needs this class, and torch.load(weights_only=True) refuses it"
    yield from statements(context, "needs-code", names_of(context, "needs-code"), what, "")
