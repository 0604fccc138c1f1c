"""The step that comes: what has been seen of it before its optimizer makes it one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ckpttool.determinism import digesting


@dataclass(slots=True)
class Gathered:
    """What went into the forward passes since the last step, and what came out.

    ``batch`` are digests of what went into training forwards, ``aside`` into those in evaluation mode that keep
    gradients. ``ids`` and ``told_rows`` are what the script said of its samples. ``before`` are generators and settings
    as the first of these forwards found them.
    """

    batch: list[str] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    told_rows: list[str] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    before: dict[str, str] = field(default_factory=dict)

    @property
    def forwards(self) -> int:
        """How many forward passes there were."""
        return len(self.batch) + len(self.aside)

    @property
    def loss(self) -> float | None:
        """The mean, a number for people."""
        return sum(self.losses) / len(self.losses) if self.losses else None

    def consumes(self, given: Any, *, training: bool) -> None:
        """A forward pass begins, with these arguments."""
        if training:
            self.batch.append(digesting.of_value(given))
            self.rows.append(digesting.rows_of(given))
        else:
            self.aside.append(digesting.of_value(given))

    def told(self, ids: object, loss: float | None) -> None:
        """The script says which samples the step consumes, and its loss."""
        if ids is not None:
            self.ids.append(digesting.of_value(ids))
            self.told_rows.append(digesting.rows_of(ids))
        if loss is not None:
            self.losses.append(loss)

    def fields(self) -> dict[str, str]:
        """What belongs to this step alone, but for its gradients."""
        found = {"data": digesting.joined(self.batch or self.aside)}
        if self.ids:
            found["data.ids"] = digesting.joined(self.ids)
        return {**found, "loss": digesting.joined([loss.hex() for loss in self.losses])}

    def facts(self) -> dict[str, Any]:
        """What is told beside the fields."""
        rows = "".join(self.rows)
        told = {"rows": "".join(self.told_rows), "contents": rows} if self.told_rows else {"rows": rows}
        return {**told, "micro": len(self.losses)}
