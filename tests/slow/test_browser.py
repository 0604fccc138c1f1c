"""A report in a real browser: a phone, a desk, paper. Skipped by name where no Chromium is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

from ckpttool.changes import Change, Difference
from ckpttool.comparing.picture import pictures
from ckpttool.render import render
from ckpttool.report import Cell, Curves, Details, HeatMap, Lane, Mark, Report, Table, Text, Timeline

pytestmark = pytest.mark.slow  # starts a browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr")

# The page lies in a frame of the width in question, unchanged and under its own policy; the frame around it looks.
LOOK = """<!DOCTYPE html><body><iframe width="{width}" height="800" srcdoc="{page}"></iframe><pre id="seen"></pre>
<script>
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {{
  const page = frame.contentDocument, root = page.documentElement;
  page.querySelectorAll("details").forEach((e) => {{ e.open = true; }});
  const scrolls = (e) => e.closest(".wide") || e.closest(".sr");
  const over = [...page.querySelectorAll("main *")]
    .filter((e) => !scrolls(e) && e.getBoundingClientRect().right > root.clientWidth + 1);
  const shade = page.querySelector("td[class^=s]");
  document.getElementById("seen").textContent = JSON.stringify({{
    width: root.clientWidth, wide: root.scrollWidth, over: over.map((e) => e.outerHTML.slice(0, 200)),
    shade: getComputedStyle(shade).backgroundColor,
    bars: [...page.querySelectorAll(".column i, .track i")].filter((e) => e.getBoundingClientRect().height < 1).length,
    shapes: [...page.querySelectorAll("svg *:not(title)")].map((e) => e.getBoundingClientRect())
      .map((box) => Math.max(box.width, box.height)),
    strokes: [...page.querySelectorAll("svg line, svg polyline")].map((e) => getComputedStyle(e).stroke),
  }});
}});
</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    """The path of a Chromium."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    return found


@pytest.fixture(scope="module")
def runs() -> str:
    """Three hundred steps, killed in twenty places, as a page."""
    saves: tuple[tuple[int, Mark], ...] = tuple((n, "save") for n in range(10, 301, 10))
    lanes = [Lane("uninterrupted", 1, 300, saves)]
    for cut in range(15, 300, 15):
        lanes.append(
            Lane(f"killed in the save after step {cut}, before event 3 of its files", 1, cut, ((cut, "kill"),))
        )
        lanes.append(Lane("  resumed", cut - 4, 300, ((cut - 4, "resume"), (cut + 1, "depart"), *saves[20:])))
    curves = Curves((
        ("uninterrupted", tuple((n, 3 / n**0.5) for n in range(1, 301))),
        ("resumed, killed after step 150", tuple((n, 3.5 / n**0.5) for n in range(150, 301))),
    ), "loss")  # fmt: skip
    map_ = HeatMap(("params", "optimizer"), ("1", "2"), ((Cell(0.0), Cell(1.0)), (Cell(0.5), None)), "agreement")
    blocks = (Text("diverged", "title"), Timeline(tuple(lanes), 300, "what was run"), map_, curves)
    return render(Report("determinism", {}, blocks), "html")


@pytest.fixture(scope="module")
def page() -> str:
    """A diff of twelve layers as a page, with a name that is hard to break."""
    names = [
        f"model.layers.{i}.{leaf}.weight" for i in range(12) for leaf in ("attn.q_proj", "mlp.fc1", "norm", "x" * 90)
    ]
    sizes = [10.0 ** -(1 + place % 7) for place in range(len(names))]
    changes = [
        Change("rewritten", ("rewritten",), n, None, "weights", None, None, Difference(9, 9, 9, 9, rms=size, scale=1.0))
        for n, size in zip(names[8:], sizes, strict=False)
    ]
    table = Table(("tensor", "change"), tuple((change.key, "rewritten") for change in changes))
    drawn = pictures(changes, [(name, "weights", 9) for name in names], deltas={-6: 100, -5: 3, -2: 40})
    blocks = (Text("a.pth → b.pth", "title"), *drawn, Details("every change", (table,)))
    return render(Report("diff", {}, blocks), "html")


def run(browser: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [browser, *FLAGS, f"--user-data-dir={folder / 'profile'}", *arguments],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def look(browser: str, page: str, tmp_path: Path, width: int) -> dict[str, Any]:
    """What a browser sees in a page of a width; fails where something is refused or sticks out."""
    (tmp_path / "look.html").write_text(LOOK.format(width=width, page=escape(page)), encoding="utf-8")
    done = run(browser, tmp_path, "--dump-dom", "--virtual-time-budget=3000", (tmp_path / "look.html").as_uri())
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None
    seen: dict[str, Any] = json.loads(unescape(found[1]))
    assert seen["over"] == []
    assert seen["wide"] <= seen["width"] <= width
    assert seen["bars"] == 0, "a bar of something is not to be seen"
    assert seen["shade"] not in ("rgba(0, 0, 0, 0)", "rgb(255, 255, 255)"), "the shades have no colour"
    return seen


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_sticks_out_and_nothing_is_refused(browser: str, page: str, tmp_path: Path, width: int) -> None:
    look(browser, page, tmp_path, width)


@pytest.mark.parametrize("width", [320, 1280])
def test_timelines_and_curves_are_to_be_seen(browser: str, runs: str, tmp_path: Path, width: int) -> None:
    seen = look(browser, runs, tmp_path, width)
    assert len(seen["shapes"]) > 100
    assert min(seen["shapes"]) > 5, "a shape is not to be seen"
    assert len(set(seen["strokes"])) == 2
    assert "none" not in seen["strokes"]


def test_the_look_can_fail(browser: str, page: str, tmp_path: Path) -> None:
    broken = page.replace("<main>", '<main><p style="width:2000px">x</p><script>1</script>')
    (tmp_path / "look.html").write_text(LOOK.format(width=390, page=escape(broken)), encoding="utf-8")
    done = run(browser, tmp_path, "--dump-dom", "--virtual-time-budget=3000", (tmp_path / "look.html").as_uri())
    assert "CONSOLE" in done.stderr
    assert "width:2000px" in done.stdout.split('id="seen"')[1]


def test_it_prints(browser: str, page: str, tmp_path: Path) -> None:
    (tmp_path / "diff.html").write_text(page, encoding="utf-8")
    paper = tmp_path / "diff.pdf"
    run(browser, tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={paper}", (tmp_path / "diff.html").as_uri())
    data = paper.read_bytes()
    assert data.startswith(b"%PDF")
    # What is folded on a screen is open on paper: the table alone takes more than a page.
    assert len(re.findall(rb"/Type\s*/Page\b", data)) > 1
