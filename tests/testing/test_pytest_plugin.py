"""The plugin in a pytest of its own: options, the fixture, and nothing where it is not used."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytest_plugins = ["pytester"]

TRAINEE = """
import json
class Counting:
    forgets = False
    def __init__(self): self.total, self.done = 0.0, 0
    def step(self):
        self.done += 1
        self.total += 1 / self.done
        return self.total
    def save(self, path): path.write_text(json.dumps([self.total, self.done]))
    def load(self, path):
        total, self.done = json.loads(path.read_text())
        self.total = 0.0 if self.forgets else total
class Forgetful(Counting):
    forgets = True
"""
TESTS = (
    TRAINEE
    + """
tried = []
class Told(Counting):
    def load(self, path):
        super().load(path)
        tried.append(self.done)

def test_exact(resume_check):
    resume_check(Told, steps=9)
    print("loads", len(tried))

def test_broken(resume_check):
    resume_check(Forgetful, steps=9, cuts=[4])
"""
)


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return lambda *words: pytester.runpytest_subprocess(
        "-p", "ckpttool.pytest_plugin", "-p", "no:cacheprovider", *words
    )


def test_the_fixture_passes_and_fails(pytester: pytest.Pytester, run: object) -> None:
    pytester.makepyfile(TESTS)
    done = run("-rA", "-q")
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines([
        "*not exact: stopped after step 4 and resumed, it departs at step 5*", "*component*counters*",
        "*first*counters.total is 0, not 2.083333333333333*",
    ])  # fmt: skip
    assert "in_process.py" not in done.stdout.str(), "our own frames are no help"


@pytest.mark.slow
def test_the_option_says_how_many(pytester: pytest.Pytester, run: object) -> None:
    pytester.makepyfile(TESTS)
    for number, loads in ((1, 1), (5, None)):
        done = run("-s", "-q", "--resume-cuts", str(number))
        told = int(next(line for line in done.outlines if "loads" in line).split()[-1])
        assert told == (loads or told) >= number
    # The cut that a test names is tried beside those.
    done.stdout.fnmatch_lines(["*cuts*not exact: *4*"])


@pytest.mark.slow
def test_none_skips(pytester: pytest.Pytester, run: object) -> None:
    pytester.makepyfile(TESTS)
    run("--resume-cuts", "0").assert_outcomes(skipped=2)
    assert run("--resume-cuts", "-1").ret == pytest.ExitCode.USAGE_ERROR


def test_unused_it_imports_nothing(pytester: pytest.Pytester, run: object) -> None:
    pytester.makepyfile("""
        import sys
        def test_it():
            heavy = {"torch", "numpy", "hypothesis", "xxhash", "ckpttool.determinism", "ckpttool.testing"}
            assert not heavy & set(sys.modules)
    """)
    run().assert_outcomes(passed=1)


@pytest.mark.slow
def test_help_shows_the_options(run: object) -> None:
    run("--help").stdout.fnmatch_lines(["ckpttool:", "*--resume-cuts*N*"])


def test_installing_ckpttool_installs_it() -> None:
    import tomllib

    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    (name,) = found
    module = EntryPoint(name, found[name], "pytest11").load()
    assert callable(module.pytest_addoption)


@pytest.mark.slow
def test_a_command_is_killed_for_real(pytester: pytest.Pytester, run: object) -> None:
    # Not imported here: pytester forgets what was, and torch cannot be imported twice.
    if find_spec("torch") is None:
        pytest.skip("torch is not installed")
    script = ROOT / "tests" / "determinism" / "script.py"
    pytester.makepyfile(f"""
        import sys
        def test_command(resume_check):
            resume_check([sys.executable, {str(script)!r}, "{{out}}", "no-optimizer"], steps=10, cuts=1)
    """)
    done = run("-q")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*diverged*", "*cause*optimizer-lost*", "*element*"])
