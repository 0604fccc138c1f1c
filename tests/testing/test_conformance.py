"""Every format keeps what the suite asks, and the suite notices a format that does not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from ckpttool.formats import bare_pickle, safetensors, torch_legacy, torch_tar, torch_zip
from ckpttool.limits import Limits
from ckpttool.model import Checkpoint
from ckpttool.source import Source
from ckpttool.testing.conformance import FormatConformance
from ckpttool.testing.plain import Pickled, tensor
from ckpttool.testing.samples import FILES, weights
from ckpttool.testing.writers import legacy_file, safetensors_file, torch_file

FIXTURES = Path(__file__).parents[2] / "fixtures"
BIG = {"w": tensor((1024, 1024), bytes(4 << 20)), "b": tensor((4,), bytes(16))}


class TestTorchZip(FormatConformance):
    module = torch_zip

    def good_files(self) -> dict[str, bytes]:
        return {"sample": FILES["torch-zip"](), "no tensor": torch_file([1, 2])}

    def big_payload(self) -> bytes:
        return torch_file(BIG)


class TestTorchLegacy(FormatConformance):
    module = torch_legacy

    def good_files(self) -> dict[str, bytes]:
        return {"sample": FILES["torch-legacy"](), "no tensor": legacy_file([1, 2])}

    def big_payload(self) -> bytes:
        return legacy_file(BIG)


class TestSafetensors(FormatConformance):
    module = safetensors

    def good_files(self) -> dict[str, bytes]:
        return {"sample": FILES["safetensors"](), "no tensor": safetensors_file({})}

    def big_payload(self) -> bytes:
        return safetensors_file(BIG)


class TestBarePickle(FormatConformance):
    module = bare_pickle

    def good_files(self) -> dict[str, bytes]:
        return {"values": Pickled.dumps({"epoch": 7, "names": ["a", "b"]})[0]}


class TestTorchTar(FormatConformance):
    module = torch_tar

    def good_files(self) -> dict[str, bytes]:
        path = FIXTURES / "torch_tar.pth"
        if not path.exists():
            pytest.skip("fixtures/ is not here: not a full checkout")
        return {path.name: path.read_bytes()}

    def test_sound_files_are_read_without_damage(self) -> None:
        for data in self.good_files().values():
            assert {damage.rule for damage in self.read(data).damage} <= {"tar-layout"}


# --- a suite that cannot fail proves nothing -------------------------------------------------------------


def suite_for(**changes: object) -> FormatConformance:
    """The suite for safetensors with some functions replaced by faulty ones."""
    functions = {"NAME": "safetensors", "sniff": safetensors.sniff, "read": safetensors.read, **changes}
    suite = TestSafetensors()
    suite.module = SimpleNamespace(**functions)  # type: ignore[assignment]
    return suite


def greedy(source: Source, limits: Limits) -> Checkpoint:
    source.read(0, source.size)
    return safetensors.read(source, limits)


def fragile(source: Source, limits: Limits) -> Checkpoint:
    source.read(0, 8)[7]
    return safetensors.read(source, limits)


def empty(source: Source, limits: Limits) -> Checkpoint:
    return Checkpoint(source.name, "safetensors")


def test_the_suite_notices_a_format_that_claims_everything() -> None:
    with pytest.raises(AssertionError):
        suite_for(sniff=lambda source: True).test_it_claims_nothing_else()


def test_the_suite_notices_a_format_that_claims_nothing() -> None:
    with pytest.raises(AssertionError):
        suite_for(sniff=lambda source: False).test_it_claims_its_own_files()


def test_the_suite_notices_a_reader_that_reads_tensors() -> None:
    with pytest.raises(AssertionError):
        suite_for(read=greedy).test_only_headers_are_read()


def test_the_suite_notices_a_reader_that_raises() -> None:
    with pytest.raises(IndexError):
        suite_for(read=fragile).test_truncations_are_read()


def test_the_suite_notices_a_reader_that_reads_nothing() -> None:
    with pytest.raises(AssertionError):
        suite_for(read=empty).test_sound_files_are_read_without_damage()


def test_a_suite_without_files_says_so() -> None:
    with pytest.raises(TypeError, match="does not say which files are sound"):
        FormatConformance().good_files()


def test_weights_alone_are_sound_too() -> None:
    assert torch_zip.NAME == "torch-zip"
    assert TestTorchZip().read(torch_file(weights())).damage == ()
