"""torchdata's StatefulDataLoader over the trainer's order: it stops in mid-epoch and goes on with the same batches."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")]


@pytest.mark.parametrize("workers", [0, 2])
def test_it_goes_on_where_it_was(framework: Callable[[str], ModuleType], workers: int) -> None:
    framework("torchdata")
    from torchdata.stateful_dataloader import StatefulDataLoader

    from ckpttool.trainer.config import make_config
    from ckpttool.trainer.data import Plan, Position, Samples, StatefulOrder
    from ckpttool.trainer.tasks import load_task

    config = make_config({})
    parts = load_task(config)
    plan = Plan(len(parts.train.targets), 64, 0)

    def loader() -> Any:
        return StatefulDataLoader(
            Samples(parts, config), batch_sampler=StatefulOrder(plan, Position()), num_workers=workers
        )

    first = loader()
    stream = iter(first)
    for _ in range(25):  # into the second epoch
        next(stream)
    state = first.state_dict()
    wanted = [next(stream) for _ in range(6)]
    second = loader()
    second.load_state_dict(state)
    again = iter(second)
    for inputs, targets, ids in wanted:
        found = next(again)
        assert found[2].tolist() == ids.tolist()
        assert found[0].equal(inputs)
        assert found[1].equal(targets)
