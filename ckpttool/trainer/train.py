"""The loop. Everything else in this folder serves these lines."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ckpttool import Recorder, UsageError
from ckpttool.trainer import distributed
from ckpttool.trainer.checkpoints import Saver
from ckpttool.trainer.config import Config
from ckpttool.trainer.data import Batch, Plan, Position, batches, mixed
from ckpttool.trainer.faults import Faults
from ckpttool.trainer.logs import Log, Watch
from ckpttool.trainer.optim import Average, make_optimizer, make_scaler, make_schedule
from ckpttool.trainer.signals import Signals
from ckpttool.trainer.state import Boundary, Counters, TrainState, generators, restore_generators, seed_everything
from ckpttool.trainer.tasks import TaskParts, load_task, loss_of


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended: why, how far it had come, what it was judged by, and what is worth telling."""

    why: str
    counters: Counters
    metric_name: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """What the loop works with. All that changes is in ``state``."""

    parts: TaskParts
    state: TrainState
    plan: Plan
    stream: Iterator[Batch]
    forward: nn.Module  # the model, compiled or wrapped
    saver: Saver
    faults: Faults
    log: Log | None  # the first process's
    recorder: Any  # of `ckpttool determinism`, where that is running


def train(config: Config, out: Path, watch: Watch | None = None) -> Result:
    """Train, or go on from the newest sound checkpoint in ``out``, until the end, a signal or an error.

    Raises ``UsageError`` for a folder of another run, ``Locked`` where another process trains in it, ``WriteFailed``
    for a disk that takes no more. An exception is raised again after a last checkpoint has been saved.
    """
    set_up(config)
    with distributed.processes(config):
        return train_together(config, out, watch)  # what it made is gone before the group is, which DDP waits for


def train_together(config: Config, out: Path, watch: Watch | None) -> Result:
    """What each process does."""
    parts, faults = load_task(config), Faults(config.inject)
    plan = Plan(len(parts.train.targets), config.batch_size, config.seed, distributed.rank(), distributed.world())
    state = fresh_state(config, parts)
    recorder = Recorder.from_env(ema=state.ema, counters=lambda: asdict(state.counters), ignore=("counters.resumes",))
    with Signals() as signals, Saver(out, config, signals, lower=parts.lower) as saver:
        notes = [] if faults.ignore_checkpoints else saver.resume(state)
        start = state.counters.step
        faults.after_resume(state, parts)
        stream = batches(parts, config, faults.order(plan, state.position))
        forward = distributed.replicated(torch.compile(state.model) if config.compile else state.model, config)
        with Log(out, start, config, watch) if distributed.rank() == 0 else nullcontext() as log:
            why = loop(Run(parts, state, plan, stream, forward, saver, faults, log, recorder))
    notes.append(saver.costs.advice(config.failures_every, state.counters.step - start))
    return Result(why, state.counters, parts.metric_name, tuple(notes))


def loop(run: Run) -> str:
    """Step after step; why it ended."""
    config, state, saver = run.state.config, run.state, run.saver
    while not finished(run):
        boundary = Boundary(state)
        try:
            loss = accumulate(run)
        except Exception:
            if distributed.world() > 1:
                raise  # the others know nothing of it, and wait in the middle of their step
            boundary.undo(state)
            save_if_new(run)
            raise
        if not math.isfinite(loss):
            raise UsageError(f"step {state.counters.step + 1} – the loss is {loss}; try a lower lr")
        norm = update(state, loss)
        step = state.counters.step
        metric = judge(run) if config.eval_every and step % config.eval_every == 0 else None
        if run.log is not None and step % config.log_every == 0:
            numbers = {"lr": float(state.optimizer.param_groups[0]["lr"]), "scale": state.scaler.get_scale()}
            run.log.row(state, loss=loss, loss_average=state.counters.average, gradient_norm=norm, **numbers)
        epoch_ended = state.position.epoch > boundary.position.epoch
        is_best = metric is not None and state.counters.best_step == step
        due_here = saver.due(state, epoch_ended=epoch_ended, is_best=is_best)
        if saver.signals.agree(due_here) or finished(run):
            save(run, metric)
    save_if_new(run)
    saver.wait()
    return saver.signals.stop or ("no better metric" if state.counters.stopped else "all steps done")


def finished(run: Run) -> bool:
    """Whether the step that was done is the last one."""
    counters = run.state.counters
    return counters.step >= run.state.config.steps or counters.stopped or bool(run.saver.signals.stop)


def accumulate(run: Run) -> float:
    """Gradients of one step, from as many micro-batches as it takes; the mean loss over all processes."""
    config, state, total = run.state.config, run.state, 0.0
    for micro in range(config.accumulate):
        inputs, targets, indices = next(run.stream)
        run.recorder.step(ids=indices)
        with distributed.sharing(run.forward, last=micro + 1 == config.accumulate):
            with precision(config):
                loss = loss_of(run.forward(inputs), targets) / config.accumulate
            state.scaler.scale(loss).backward()
        total += float(loss.item())
        state.position = run.plan.after(state.position)
        state.counters.samples += run.plan.batch_size
        run.faults.micro_step(state)
    distributed.same_buffers(state.model)
    return distributed.mean(total)


def update(state: TrainState, loss: float) -> float:
    """One step of optimizer, schedule and average, left out where fp16 overflowed; the norm before clipping."""
    counters, scale = state.counters, state.scaler.get_scale()
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), state.config.clip or math.inf)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    if state.scaler.get_scale() < scale:
        counters.skipped += 1
    else:
        if not isinstance(state.scheduler, ReduceLROnPlateau):
            state.scheduler.step()
        if state.ema is not None:
            state.ema.update(state.model)
    counters.average = loss if counters.step == 0 else 0.9 * counters.average + 0.1 * loss
    counters.step += 1
    return float(distributed.whole(norm))


def judge(run: Run) -> float:
    """Evaluate, remember the best, tell the plateau schedule, stop early."""
    state, parts, counters = run.state, run.parts, run.state.counters
    metric: float = distributed.first(evaluate(state.model, parts))
    run.faults.strike("evaluate", state)
    average = evaluate(state.ema.model, parts) if state.ema is not None else metric
    if counters.best is None or (metric < counters.best if parts.lower else metric > counters.best):
        counters.best, counters.best_step, counters.bad_evaluations = metric, counters.step, 0
    else:
        counters.bad_evaluations += 1
        counters.stopped = 0 < state.config.patience <= counters.bad_evaluations
    if isinstance(state.scheduler, ReduceLROnPlateau):
        state.scheduler.step(metric if parts.lower else -metric)
    if run.log is not None:
        run.log.row(state, metric=metric, ema_metric=average)
    return metric


@torch.no_grad()
def evaluate(model: nn.Module, parts: TaskParts) -> float:
    """The metric on what is held out, a mean over samples. Leaves no trace: generators and mode are put back."""
    training, before, held_out = model.training, generators(), parts.held_out
    model.eval()
    try:
        pairs = zip(held_out.inputs.split(256), held_out.targets.split(256), strict=True)
        return sum(float(parts.metric(model(inputs), targets)) for inputs, targets in pairs) / len(held_out.targets)
    finally:
        model.train(training)
        restore_generators(before)


def save(run: Run, metric: float | None = None) -> None:
    """A checkpoint between two steps."""
    run.faults.strike("save", run.state)
    if run.log is not None:
        run.log.flush()
    run.saver.save(run.state, metric)
    if distributed.rank() == 0:
        run.faults.after_save(run.saver.store)


def save_if_new(run: Run) -> None:
    """A last checkpoint, unless this step has one or nothing was trained."""
    run.saver.wait()
    if run.state.counters.step > max(0, run.saver.saved_step):
        save(run)


def precision(config: Config) -> torch.autocast:
    """Autocast as configured."""
    kind = torch.float16 if config.precision == "fp16" else torch.bfloat16
    return torch.autocast("cpu", kind, enabled=config.precision != "fp32")


def set_up(config: Config) -> None:
    """Everything global that bits depend on: generators, threads, deterministic kernels."""
    seed_everything(config.seed)
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(config.deterministic)


def fresh_state(config: Config, parts: TaskParts) -> TrainState:
    """The state before the first step."""
    model = parts.model(config)
    ema = Average(model, config.ema) if config.ema else None
    for each in (model,) if ema is None else (model, ema.model):
        distributed.sharded(each, config)
    optimizer = make_optimizer(model, config)
    scheduler, scaler = make_schedule(optimizer, config), make_scaler(config)
    if number := distributed.rank():
        seed_everything(mixed(config.seed, number))  # all made the same model; dropout is each one's own
    return TrainState(config, model, optimizer, scheduler, scaler, ema, Counters(), Position(), parts.fingerprint())
