"""The same with torch: what modules, optimizers, schedules, scalers and averages hold is found without being named."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from ckpttool.determinism.in_process import prove
from ckpttool.testing import assert_resume_exact

torch = pytest.importorskip("torch", reason="torch is not installed")
PARTS = ("model", "optimizer", "schedule", "scaler", "average")


class Training:
    """Everything that torch has to lose; ``forgets`` is not loaded, though it was saved."""

    forgets: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        torch.manual_seed(0)
        nn = torch.nn
        self.model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-2)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, 3, 0.5)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
        self.average = torch.optim.swa_utils.AveragedModel(self.model)
        self.order = torch.Generator().manual_seed(4)
        self.rows = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))

    def step(self) -> dict[str, Any]:
        ids = torch.randint(40, (4,), generator=self.order)
        loss = (self.model(self.rows[ids]) - self.rows[ids].sum(1, keepdim=True)).square().mean()
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self.average.update_parameters(self.model)
        return {"loss": loss.detach(), "ids": ids}

    def save(self, path: Path) -> None:
        generators = {"torch": torch.get_rng_state(), "order": self.order.get_state()}
        torch.save({**{part: getattr(self, part).state_dict() for part in PARTS}, **generators}, path)

    def load(self, path: Path) -> None:
        saved = torch.load(path)
        for part in PARTS:
            if part == "model" and "buffers" in self.forgets:
                saved[part] = {k: v for k, v in saved[part].items() if "running" not in k and "num" not in k}
            if part not in self.forgets:
                strict = {"strict": False} if part == "model" else {}
                getattr(self, part).load_state_dict(saved[part], **strict)
        if "order" not in self.forgets:
            self.order.set_state(saved["order"])
        if "torch" not in self.forgets:
            torch.set_rng_state(saved["torch"])


def test_a_complete_state_is_exact() -> None:
    assert_resume_exact(Training, steps=8, cuts=[(2, 5)])


# What is forgotten -> the component, the first step that differs, the first whose loss does.
LOST = {
    "model": ("params", 3, 3),
    "buffers": ("buffers", 3, None),
    "optimizer": ("optimizer", 3, 4),
    "schedule": ("scheduler", 3, 5),
    "scaler": ("scaler", 3, None),
    "average": ("ema", 3, None),
    "torch": ("rng", 3, 3),
    "order": ("data", 3, 3),
}


@pytest.mark.parametrize("name", LOST)
def test_every_part_that_is_lost_is_named(tmp_path: Path, name: str) -> None:
    factory = type("Forgetting", (Training,), {"forgets": (name,)})
    (found,) = prove(factory, tmp_path, steps=8, cuts=[2]).findings
    assert found.departure is not None
    told = (found.causes[0].component, found.departure.step, found.departure.loss_step)
    assert told == LOST[name], found
    assert found.element is not None
    if name == "optimizer":
        assert str(found.element) == "optimizer.exp_avg model.0.weight is absent, not float32 [8, 4]"


def test_a_single_bit_is_told_with_its_place_and_distance(tmp_path: Path) -> None:
    class Nudged(Training):
        def load(self, path: Path) -> None:
            super().load(path)
            weight = self.model[3].weight.data
            weight[0, 2] = torch.nextafter(weight[0, 2], torch.tensor(9.0))

    (found,) = prove(Nudged, tmp_path, steps=4, cuts=[2]).findings
    assert found.element is not None
    assert (found.element.name, found.element.index) == ("params model.3.weight", (0, 2))
    assert (found.element.ulps, found.element.odd, found.element.total) == (1, 1, 8)
