"""The three tasks learn what they are meant to, with nothing but their defaults."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

UNIGRAMS = 3.29
"""Nats per character that who knows how often each comes, and no more, cannot go below on this text."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "least", "most"), [("digits", 0.93, 1.0), ("gpt", 0.0, UNIGRAMS - 0.4), ("tabular", 0.0, 0.15)]
)
def test_a_task_learns(trainers: Any, tmp_path: Path, task: str, least: float, most: float) -> None:
    ended = trainers(tmp_path / "run", "--task", task)
    assert ended.status == 0, ended.text
    with (tmp_path / "run" / "log.csv").open(newline="") as file:
        metrics = [float(row["metric"]) for row in csv.DictReader(file) if row["metric"]]
    assert least <= (max if task == "digits" else min)(metrics) <= most
