"""Whether what a migration leads to is what its target asks for: every key, every shape. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ckpttool.migration.products import Product
from ckpttool.migration.rule_errors import listed
from ckpttool.migration.scopes import Scope
from ckpttool.migration.target import Target
from ckpttool.migration.trouble import MigrationError
from ckpttool.migration.workshop import Workshop


def check_target(shop: Workshop, scope: Scope, products: Sequence[Product], target: Target) -> None:
    """Raise ``MigrationError`` with every key that is missing, left over or of another shape than the target's."""
    have = {p.name: tensor.shape for p in products if (tensor := shop.tensor(p.index)) is not None}
    wanted = {name: form.shape for name, form in target.keys}
    problems = []
    missing = [name for name in wanted if name not in have]
    if missing:
        problems.append(f"{len(missing)} of its keys would be missing: {listed(missing)}")
    extra = [name for name in have if name not in wanted]
    if extra:
        problems.append(f"{len(extra)} keys are none of its own: {listed(extra)}")
    other = [name for name in have if name in wanted and have[name] != wanted[name]]
    if other:
        shown = ", ".join(f"'{name}' {list(have[name])} and not {list(wanted[name])}" for name in other[:3])
        more = f" and {len(other) - 3} more" if len(other) > 3 else ""
        problems.append(f"{len(other)} keys have another shape: {shown}{more}")
    if problems:
        where = ".".join(scope.path) or shop.editor.original.source
        raise MigrationError(f"{where} – does not become {target.name}: {'; '.join(problems)}")
