"""Writes down what a training process does, through torch's own global hooks: no line of the script changes.

Parameters get their names from the root module of the forward pass; a batch belongs to the step that consumes it.
Everything is a digest (XXH3-128 over name, type, shape and bytes) or a float as exact hex. Off unless
``CKPTTOOL_TRACE_DIR`` is set. This is the life of a trace: ``hooks`` says when, ``living`` what there is.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ckpttool.determinism import digesting
from ckpttool.determinism.digesting import generators
from ckpttool.determinism.disk import size_of, watched_disk
from ckpttool.determinism.ending import Ending
from ckpttool.determinism.events import Pen, Window
from ckpttool.determinism.gathering import Gathered
from ckpttool.determinism.hooks import Hooks
from ckpttool.determinism.inflow import inflow_of
from ckpttool.determinism.living import Living, environment, has_gradients
from ckpttool.determinism.measuring import told
from ckpttool.determinism.orders import Orders
from ckpttool.determinism.snapshots import read_snapshot, write_parts, write_tensors
from ckpttool.determinism.surgery import break_part, transplant
from ckpttool.determinism.trace import SCHEMA

ORDINARY = 3
"""First steps between which everything is looked at: what moves there moves without a save or an evaluation too."""

_INSTALLED: list[Recorder] = []


def install() -> Recorder | None:
    """Start recording in this process, once; None where no trace is asked for."""
    if _INSTALLED:
        return _INSTALLED[0]
    orders = Orders.from_environment()
    if orders is None:
        return None
    recorder = Recorder(orders)
    Hooks(recorder).install()
    _INSTALLED.append(recorder)
    return recorder


class Recorder:
    """One process's trace. What hooks cannot see a script names: ``watching.Recorder``.

    ``base`` is the step that this process went on from, ``done`` counts its own.
    """

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.rank = int(os.environ.get("RANK", "0"))
        self.base = 0
        self.done = 0
        self.started = False  # the first training forward has come
        self.living = Living()
        self.gathered = Gathered()
        self.after: dict[str, str] = {}  # weights and generators as the last step left them
        self.evaluations = 0  # forward passes without gradients since the last step
        self.found: dict[str, str] = {}  # generators and buffers as the first forward passes found them
        self.window = Window(orders)
        self.pen = Pen(orders.folder, self.rank)
        self.disk = watched_disk(orders)
        self.ending = Ending(orders, self.rank, self.write, self.disk)
        self.inflow = inflow_of(orders, self.rank, functools.partial(self.write, "batches"))
        self.pen.first("start", schema=SCHEMA, rank=self.rank, pid=os.getpid(), environment=environment())

    @property
    def number(self) -> int:
        """The step that was taken last, in the whole training."""
        return self.base + self.done

    # --- steps --------------------------------------------------------------------------------------------------------

    def before_root(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """An outermost forward pass begins, of training or of something else; the arguments that it is to have."""
        root = self.living.root_of(module)
        if torch.is_grad_enabled() and any(p.requires_grad for p in root.parameters()):
            return self.before_forward(root, args, kwargs)
        if not torch.is_grad_enabled():
            self.evaluations += 1
        return args, kwargs

    def before_forward(self, root: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """A training forward of a root module begins: what goes in, and the generators."""
        is_new = root not in self.living.roots
        self.living.roots.add(root)
        if is_new and not self.done:
            self.first_forward()
        if not self.gathered.before:
            self.gathered.before = generators() | self.living.settings()
            self.between()
            if self.done and self.number in self.orders.snapshots:
                write_parts(self.living, self.orders.folder, self.rank, str(self.number))
        if self.inflow is not None:
            args, kwargs = self.inflow.forward(args, kwargs)
        self.gathered.consumes((args, kwargs), training=root.training)
        return args, kwargs

    def after_root(self) -> None:
        """An outermost forward pass is over."""
        if self.inflow is not None:
            self.inflow.after_forward()

    def first_forward(self) -> None:
        """The state that the first step starts from: what a resume restored. Orders to change it are obeyed here.

        Of several roots each has its turn, and what the passes of those before it moved is told as it was.
        """
        living, known = self.living, {name for name in self.found if name.startswith("buffers.")}
        buffers = {f"buffers.{name}": digesting.of_tensor(buffer) for name, buffer in living.buffers()}
        self.found = generators() | buffers | self.found
        drawn = {name: digest for name, digest in self.found.items() if name not in buffers}
        buffers = {name: self.found[name] for name in buffers}
        whole = digesting.of_group((name.partition(".")[2], digest) for name, digest in buffers.items())
        self.write(
            "state",
            step=self.base,
            fields=living.state_fields() | living.settings() | {"buffers": whole} | drawn,
            tensors=dict(living.each_digest(gradients=False)) | buffers,
            modules=living.modules(),
            environment=environment(),
            **told(living),
        )
        if self.orders.first:
            self.picture("first")
        is_first, self.started = not self.started, True
        if self.orders.transplant:
            saved = read_snapshot(Path(self.orders.transplant), self.rank, str(self.orders.start))
            saved["buffers"] = {n: buffer for n, buffer in saved["buffers"].items() if f"buffers.{n}" not in known}
            once = ("data",) if is_first else ("data", "rng")
            transplant(living, saved, [part for part in self.orders.parts if part not in once])
        elif self.orders.drop and is_first:
            break_part(living, self.orders.drop)

    def before_backward(self, loss: float) -> None:
        """A loss goes back through the network."""
        if self.inflow is not None:
            self.inflow.close()
        self.gathered.losses.append(loss)

    def seeded(self, how: str) -> None:
        """torch's generator was seeded or restored."""
        if not self.started:
            self.write("generator", how=how, digest=digesting.of_tensor(torch.get_rng_state()))

    def after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """An optimizer has stepped: one line, and the end of the process if that was ordered."""
        living, gathered = self.living, self.gathered
        living.optimizers.add(optimizer)
        if not self.done and not gathered.forwards and not gathered.losses and not has_gradients(optimizer):
            return  # it only makes its state, as torch's get_state_dict has it do: nothing is trained
        living.stepped = frozenset(id(p) for group in optimizer.param_groups for p in group["params"])
        self.done += 1
        if self.inflow is not None:
            self.inflow.ends(gathered)
        gradients = [(name, digesting.of_tensor(grad)) for name, grad in living.gradients()]
        state, now = living.state_fields(), generators()
        fields = {
            **gathered.fields(),
            "gradients": digesting.of_group(gradients),
            **state,
            **(gathered.before or (now | living.settings())),
        }
        facts = gathered.facts() | {"graded": len(gradients)}
        if self.orders.full:
            facts["tensors"] = dict(living.each_digest())
        self.write("step", step=self.number, fields=fields, loss=gathered.loss, **facts)
        self.gathered = Gathered()
        self.after, self.evaluations = state | now, 0
        if self.number in self.orders.snapshots:
            self.picture(str(self.number))
        self.ending.after_step(self.number)

    def between(self) -> None:
        """What moved since the last step, where something was saved or evaluated; of generators in any case."""
        saves = self.window.close(self.write)
        if not self.after:
            return
        before = self.gathered.before
        moved = [name for name, digest in self.after.items() if name in before and before[name] != digest]
        if saves or self.evaluations or self.done <= ORDINARY:
            now = self.living.state_fields()
            moved += [name for name in now if now[name] != self.after.get(name, now[name])]
        if moved or saves or self.evaluations:
            self.write("between", step=self.number, saves=saves, evaluations=self.evaluations, moved=moved)
        self.after = {}

    # --- saves and loads ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def saving(self, obj: Any, path: str) -> Iterator[None]:
        """Around a save: before it the digests of what is saved and of what lives, after it that it was done."""
        leaves = digesting.leaves(obj, self.living.ignored)
        number = self.begin_save(path, digest=digesting.of_group(leaves.items()), parts=digesting.parts_of(leaves),
                                 leaves=leaves)  # fmt: skip
        with self.ending.in_save(number):
            yield
        self.write("saved", save=number, size=size_of(path) or digesting.nbytes(obj))

    def begin_save(self, path: str, **facts: Any) -> int:
        """The line of a save that begins; its number."""
        number = self.window.open(self.write)
        if self.disk is not None:
            self.disk.begins(path, is_first=self.window.since == 1)
        live = dict(self.living.each_digest(gradients=False))
        self.write("save", step=self.number, save=number, path=path, live=live, **told(self.living), **facts)
        return number

    def loaded(self, obj: Any, path: str, **facts: Any) -> None:
        """Something was loaded: if it is a save that is known, this process goes on from its step."""
        leaves = digesting.leaves(obj, self.living.ignored)
        self.went_on(path, digest=digesting.of_group(leaves.items()), parts=digesting.parts_of(leaves), **facts)

    def went_on(self, path: str, **facts: Any) -> None:
        """The line of a load."""
        step = self.orders.step_of(facts)
        if step is not None and not self.done:
            self.base = max(self.base, step)
        self.write("load", step=self.base, base=None if step is None else self.base, path=path[:400], **facts)

    def on_event(self, event: str, args: Any) -> None:
        """Count the file events of a save; the ordered one is the last thing that happens."""
        if self.window.number and (place := self.window.event(event, args)):
            self.ending.at_event(self.number, self.window.number, place)

    # --- lines --------------------------------------------------------------------------------------------------------

    def picture(self, name: str) -> None:
        """Write the tensors out."""
        write_tensors(self.living, self.orders.folder, self.rank, name)

    def write(self, kind: str, **facts: Any) -> None:
        """One line, out of the process before anything else happens."""
        self.pen.write(kind, **facts)
