"""Look into PyTorch checkpoints, without torch and without running what they contain.

>>> import ckpttool
>>> report = ckpttool.verify(["run/last.pt"], require="resumable", fail_on="error")  # doctest: +SKIP
>>> report.exit_code  # doctest: +SKIP
<ExitCode.OK: 0>

Names are loaded when they are first used, so ``import ckpttool`` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckpttool.version import __version__ as __version__

if TYPE_CHECKING:
    from ckpttool.changes import Tolerance as Tolerance
    from ckpttool.determinism.watching import Recorder as Recorder
    from ckpttool.errors import (
        CkpttoolError as CkpttoolError,
        Damaged as Damaged,
        ExitCode as ExitCode,
        Locked as Locked,
        MissingExtra as MissingExtra,
        Unreadable as Unreadable,
        Unsafe as Unsafe,
        UsageError as UsageError,
        WriteFailed as WriteFailed,
    )
    from ckpttool.formats import describe as describe
    from ckpttool.limits import Limits as Limits
    from ckpttool.migration.code_steps import migration as migration
    from ckpttool.migration.keys import Keys as Keys
    from ckpttool.model import Checkpoint as Checkpoint, Finding as Finding
    from ckpttool.report import Report as Report
    from ckpttool.saving.costs import SaveCosts as SaveCosts
    from ckpttool.saving.digest import digest_of as digest_of
    from ckpttool.saving.environment import environment as environment, environment_changes as environment_changes
    from ckpttool.saving.load import load as load
    from ckpttool.saving.save import Saved as Saved, save as save
    from ckpttool.saving.store import CheckpointStore as CheckpointStore
    from ckpttool.verbs.chain import (
        chain_check as chain_check,
        chain_history as chain_history,
        chain_status as chain_status,
    )
    from ckpttool.verbs.convert import convert as convert
    from ckpttool.verbs.diff import diff as diff
    from ckpttool.verbs.explain import explain as explain
    from ckpttool.verbs.infer import infer as infer
    from ckpttool.verbs.inspect import inspect as inspect
    from ckpttool.verbs.latest import latest as latest
    from ckpttool.verbs.migrate import migrate as migrate
    from ckpttool.verbs.prune import prune as prune
    from ckpttool.verbs.repair import repair as repair
    from ckpttool.verbs.seal import seal as seal
    from ckpttool.verbs.verify import verify as verify

_HOMES = {
    "Checkpoint": "ckpttool.model",
    "CheckpointStore": "ckpttool.saving.store",
    "CkpttoolError": "ckpttool.errors",
    "Damaged": "ckpttool.errors",
    "ExitCode": "ckpttool.errors",
    "Finding": "ckpttool.model",
    "Keys": "ckpttool.migration.keys",
    "Limits": "ckpttool.limits",
    "Locked": "ckpttool.errors",
    "MissingExtra": "ckpttool.errors",
    "Recorder": "ckpttool.determinism.watching",
    "Report": "ckpttool.report",
    "SaveCosts": "ckpttool.saving.costs",
    "Saved": "ckpttool.saving.save",
    "Tolerance": "ckpttool.changes",
    "Unreadable": "ckpttool.errors",
    "Unsafe": "ckpttool.errors",
    "UsageError": "ckpttool.errors",
    "WriteFailed": "ckpttool.errors",
    "chain_check": "ckpttool.verbs.chain",
    "chain_history": "ckpttool.verbs.chain",
    "chain_status": "ckpttool.verbs.chain",
    "convert": "ckpttool.verbs.convert",
    "describe": "ckpttool.formats",
    "diff": "ckpttool.verbs.diff",
    "digest_of": "ckpttool.saving.digest",
    "environment": "ckpttool.saving.environment",
    "environment_changes": "ckpttool.saving.environment",
    "explain": "ckpttool.verbs.explain",
    "infer": "ckpttool.verbs.infer",
    "inspect": "ckpttool.verbs.inspect",
    "latest": "ckpttool.verbs.latest",
    "migrate": "ckpttool.verbs.migrate",
    "migration": "ckpttool.migration",
    "load": "ckpttool.saving.load",
    "prune": "ckpttool.verbs.prune",
    "repair": "ckpttool.verbs.repair",
    "save": "ckpttool.saving.save",
    "seal": "ckpttool.verbs.seal",
    "verify": "ckpttool.verbs.verify",
}

__all__ = [  # noqa: PLE0604 - the table above is the list; the version is written here
    *_HOMES,
    "__version__",
]


def __getattr__(name: str) -> object:
    """Load a public name from where it lives (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    home = import_module(_HOMES[name])
    # The decorator is the package of that name, which can be called: importing it binds it here in any case.
    value: object = home if name == "migration" else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
