"""A training without torch that records itself as the recorder would, in a tenth of a second; its modes break it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ckpttool.determinism.disk import watched_disk
from ckpttool.determinism.ending import Ending
from ckpttool.determinism.events import Pen, Window
from ckpttool.determinism.orders import Orders
from ckpttool.determinism.trace import SCHEMA

out, mode = Path(sys.argv[1]), sys.argv[2]
orders = Orders.from_environment()
assert orders is not None
LAST = 16


class Recorder:
    """What of the recorder these runs need: steps, saves, loads and death."""

    def __init__(self) -> None:
        self.pen, self.window, self.disk = Pen(orders.folder, 0), Window(orders), watched_disk(orders)
        self.write = self.pen.write
        self.ending = Ending(orders, 0, self.write, self.disk)
        self.pen.first("start", schema=SCHEMA, rank=0, environment={})
        sys.addaudithook(self.on_event)

    def on_event(self, event: str, args: tuple[object, ...]) -> None:
        if self.window.number and (place := self.window.event(event, args)):
            self.ending.at_event(state["step"], self.window.number, place)


recorder = Recorder()
marker = out / "begun"
is_resumed = marker.exists()
marker.touch()


def save(path: Path, state: dict[str, int]) -> None:
    if mode == "older" and path.exists():
        path.with_suffix(".older").write_text(path.read_text())
    number = recorder.window.open(recorder.write)
    if recorder.disk is not None:
        recorder.disk.begins("", is_first=True)
    digest = f"{state['x']:x}"
    recorder.write(
        "save", step=state["step"], save=number, path=str(path), digest=digest, parts={}, leaves={"x": digest}
    )
    data = json.dumps({**state, "padding": "-" * 200})
    with recorder.ending.in_save(number):
        if mode in ("in-place", "in-place-silent"):
            path.write_text(data)
        elif mode == "removes-first":
            path.unlink(missing_ok=True)
            path.write_text(data)
        else:
            path.with_suffix(".tmp").write_text(data)
            if mode in ("durable", "unflushed-folder"):
                flush(path.with_suffix(".tmp"))
    recorder.write("saved", save=number, size=len(data))
    if mode not in ("in-place", "in-place-silent", "removes-first"):
        path.with_suffix(".tmp").replace(path)
    if mode == "durable":
        flush(path.parent)


def flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def load(path: Path) -> dict[str, int]:
    older = path.with_suffix(".older")
    text = older.read_text() if older.exists() else path.read_text()
    try:
        found = json.loads(text)
    except ValueError:
        if mode == "in-place-silent":
            return {"x": 1, "step": 4}  # as if it were all there
        raise
    recorder.write("load", step=found["step"], base=found["step"], digest=f"{found['x']:x}")
    return found


if mode == "ignores-sigterm":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mode == "leaves-children":
    sleep = f"import os, time; os.setsid(); time.sleep(600) # {sys.argv[3]}"
    subprocess.Popen([sys.executable, "-c", sleep])
if mode == "binary":
    sys.stdout.buffer.write(b"\x00\xff\x1b[31m\x07 loss\n")
    sys.stdout.flush()

asked = []
if mode == "heeds-sigterm":
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
if mode == "heeds-one-sigterm":
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1) or signal.signal(signal.SIGTERM, signal.SIG_DFL))
if mode == "saves-in-handler":
    signal.signal(signal.SIGTERM, lambda *_: save(path, state) or sys.exit())
state, path = {"x": 12345, "step": 0}, out / "last.json"
if path.exists() and mode != "never-resumes":
    if mode == "resume-hangs":
        time.sleep(600)
    state = load(path)
while state["step"] < LAST + (4 if mode == "longer" and is_resumed else 0):
    if state["step"] == 3 and mode == "binary":
        sys.exit("\udcff broke")
    fields = {"data": str(state["step"]), "loss": "0x0p+0"}
    recorder.window.close(recorder.write)
    if mode in ("ignores-sigterm", "slow"):
        time.sleep(0.02)
    state = {"x": (state["x"] * 6364136223846793005 + 1442695040888963407) % 2**64, "step": state["step"] + 1}
    if mode == "drifts" and is_resumed and state["step"] == 11:
        state["x"] += 1
    recorder.write("step", step=state["step"], fields={**fields, "params": f"{state['x']:x}"}, loss=0.0)
    recorder.ending.after_step(state["step"])
    if asked:
        save(path, state)
        break
    if state["step"] % 4 == 0 and mode != "never-saves":
        save(path, state)
