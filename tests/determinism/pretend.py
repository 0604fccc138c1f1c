"""A training without torch that records itself as the recorder would, in a tenth of a second; its modes break it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ckpttool.determinism.events import Pen, Window
from ckpttool.determinism.orders import Orders
from ckpttool.determinism.trace import SCHEMA

out, mode = Path(sys.argv[1]), sys.argv[2]
orders = Orders.from_environment()
assert orders is not None
LAST = 16


class Recorder:
    """What of the recorder these runs need: steps, saves, loads and death."""

    rank = 0

    def __init__(self) -> None:
        self.pen, self.window = Pen(orders.folder, 0), Window(orders)
        self.pen.first("start", schema=SCHEMA, rank=0, environment={})
        sys.addaudithook(self.on_event)

    def write(self, kind: str, **facts: object) -> None:
        self.pen.write(kind, **facts)

    def end(self, why: str) -> None:
        self.write("end", why=why)
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()

    def on_event(self, event: str, args: tuple[object, ...]) -> None:
        if self.window.number and self.window.event(event, args):
            self.end("killed inside a save")


recorder = Recorder()
marker = out / "begun"
is_resumed = marker.exists()
marker.touch()


def save(path: Path, state: dict[str, int]) -> None:
    if mode == "older" and path.exists():
        path.with_suffix(".older").write_text(path.read_text())
    number = recorder.window.open(recorder.write)
    digest = f"{state['x']:x}"
    recorder.write(
        "save", step=state["step"], save=number, path=str(path), digest=digest, parts={}, leaves={"x": digest}
    )
    data = json.dumps({**state, "padding": "-" * 200})
    with recorder.window.strike(recorder):
        if mode in ("in-place", "in-place-silent"):
            path.write_text(data)
        elif mode == "removes-first":
            path.unlink(missing_ok=True)
            path.write_text(data)
        else:
            path.with_suffix(".tmp").write_text(data)
    recorder.write("saved", save=number, size=len(data))
    if mode not in ("in-place", "in-place-silent", "removes-first"):
        path.with_suffix(".tmp").replace(path)


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
    if orders.last is not None and state["step"] >= orders.last:
        recorder.end("ended")
    if orders.kill_at is not None and state["step"] >= orders.kill_at:
        if orders.signal == signal.SIGKILL:
            recorder.end("killed")
        recorder.write("signalled", step=state["step"])
        orders.kill_at = None
        os.kill(os.getpid(), signal.SIGTERM)
    if asked:
        save(path, state)
        break
    if state["step"] % 4 == 0 and mode != "never-saves":
        save(path, state)
