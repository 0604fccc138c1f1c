"""The loop. Everything else in this folder serves these lines."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ckpttool.trainer.checkpoints import Saver, resume
from ckpttool.trainer.config import Config
from ckpttool.trainer.data import Batch, Plan, Position, batches
from ckpttool.trainer.evaluate import evaluate
from ckpttool.trainer.faults import Faults
from ckpttool.trainer.logs import Log
from ckpttool.trainer.optim import Average, make_optimizer, make_scaler, make_schedule
from ckpttool.trainer.signals import Signals
from ckpttool.trainer.state import Counters, TrainState, seed_everything
from ckpttool.trainer.tasks import TaskParts, load_task, loss_of

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended: the step, why, the best metric and its step, and what is worth telling."""

    step: int
    why: str
    metric_name: str
    best: float | None
    best_step: int
    notes: tuple[str, ...]


def train(config: Config, out: Path) -> Result:
    """Train, or go on from the newest sound checkpoint in ``out``, until the end, a signal or an error.

    Raises ``UsageError`` for a folder of another run, ``Locked`` where another process trains in it, ``WriteFailed``
    for a disk that takes no more. An exception is raised again after a last checkpoint has been saved.
    """
    set_up(config)
    parts = load_task(config)
    state = fresh_state(config, parts)
    faults = Faults(config.inject)
    signals = Signals()
    saver = Saver(out, config, signals, lower=parts.lower)
    try:
        notes = resume(saver.store, state, exact=not config.inject)
        faults.after_resume(state)
        with Log(out, state.counters.step, config) as log:
            why = run(config, parts, state, saver, signals, faults, log)
    finally:
        saver.store.close()
    counters = state.counters
    return Result(
        counters.step, why, parts.metric_name, counters.best, counters.best_step, (*notes, saver.advice())
    )


def run(
    config: Config,
    parts: TaskParts,
    state: TrainState,
    saver: Saver,
    signals: Signals,
    faults: Faults,
    log: Log,
) -> str:
    """The loop itself; why it ended."""
    plan = Plan(len(parts.train), config.batch_size, config.seed)
    stream = batches(parts, config, plan, faults.start(state.position))
    forward = torch.compile(state.model) if config.compile else state.model
    saved_at = state.counters.step
    try:
        while state.counters.step < config.steps and not state.counters.stopped:
            epoch = state.position.epoch
            loss = accumulate(config, state, forward, stream, plan, faults)
            norm = update(config, state)
            counters = state.counters
            metric = judge(config, parts, state, log) if due(config.eval_every, counters.step) else None
            if due(config.log_every, counters.step):
                lr, scale = state.optimizer.param_groups[0]["lr"], state.scaler.get_scale()
                log.row(
                    counters.step,
                    epoch=state.position.epoch,
                    loss=loss,
                    lr=lr,
                    gradient_norm=norm,
                    scale=scale,
                )
            is_best = metric is not None and counters.best_step == counters.step
            last = counters.step >= config.steps or counters.stopped or signals.stop
            if saver.due(state, epoch_ended=state.position.epoch > epoch) or last or is_best:
                saver.save(faults.before_save(state), metric)
                saved_at = counters.step
            if signals.stop:
                return "SIGTERM"
    except Exception:
        # Between two steps all is consistent; in the middle of one it is not, and the older checkpoint is better.
        if state.counters.step > saved_at and not state.counters.mid_step:
            saver.save(state)
        raise
    return "no better metric" if state.counters.stopped else "all steps done"


def accumulate(
    config: Config, state: TrainState, forward: nn.Module, stream: Iterator[Batch], plan: Plan, faults: Faults
) -> float:
    """Gradients of one step, from as many micro-batches as it takes; the mean loss."""
    state.counters.mid_step = True
    total = 0.0
    for _ in range(config.accumulate):
        inputs, targets, _ = next(stream)
        with precision(config):
            loss = loss_of(forward(inputs), targets) / config.accumulate
        state.scaler.scale(loss).backward()
        state.position = plan.after(state.position)
        state.counters.samples += plan.batch_size
        total += float(loss.item())
        faults.micro_step(state)
    return total


def update(config: Config, state: TrainState) -> float:
    """One step of the optimizer, the schedule, the average; the gradient's norm before it was clipped."""
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), config.clip or math.inf)
    state.scaler.step(state.optimizer)  # left out where a gradient is not finite
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    if not isinstance(state.scheduler, ReduceLROnPlateau):
        state.scheduler.step()
    if state.ema is not None:
        state.ema.update(state.model)
    state.counters.step += 1
    state.counters.mid_step = False
    return float(norm)


def judge(config: Config, parts: TaskParts, state: TrainState, log: Log) -> float:
    """Evaluate, remember the best, tell the plateau schedule, stop early."""
    metric: float = evaluate(state.model, parts)
    average = evaluate(state.ema.model, parts) if state.ema is not None else metric
    counters = state.counters
    if counters.best is None or (metric < counters.best if parts.lower else metric > counters.best):
        counters.best, counters.best_step, counters.bad_evaluations = metric, counters.step, 0
    else:
        counters.bad_evaluations += 1
        counters.stopped = bool(config.patience) and counters.bad_evaluations >= config.patience
    if isinstance(state.scheduler, ReduceLROnPlateau):
        state.scheduler.step(metric if parts.lower else -metric)
    log.row(counters.step, epoch=state.position.epoch, metric=metric, ema_metric=average)
    return metric


def due(every: int, step: int) -> bool:
    """Whether something that happens every so many steps happens after this one; 0 is never."""
    return bool(every) and step % every == 0


def precision(config: Config) -> AbstractContextManager[object]:
    """Autocast as configured."""
    kind = PRECISIONS.get(config.precision)
    return nullcontext() if kind is None else torch.autocast("cpu", kind)


def set_up(config: Config) -> None:
    """Everything global that bits depend on: generators, threads, deterministic kernels."""
    seed_everything(config.seed)
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(config.deterministic)


def fresh_state(config: Config, parts: TaskParts) -> TrainState:
    """The state before the first step."""
    model = parts.model(config)
    optimizer = make_optimizer(model, config)
    scheduler = make_schedule(optimizer, config)
    ema = Average(model, config.ema) if config.ema else None
    return TrainState(config, model, optimizer, scheduler, make_scaler(config), ema, Counters(), Position())


def with_settings(config: Config, **changes: object) -> Config:
    """The same run with other settings."""
    return replace(config, **changes)  # type: ignore[arg-type]
