"""Laws of repair: what lies wholly in a damaged file comes back as it was, damage costs no more than what it hit."""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path
from typing import Any

from hypothesis import assume, given, settings, strategies as st

from ckpttool.errors import CkpttoolError, ExitCode
from ckpttool.formats import describe, describe_source
from ckpttool.formats.zip_salvage import Salvaged, salvage
from ckpttool.limits import DEFAULT
from ckpttool.source import Memory
from ckpttool.testing import samples, strategies, zips
from ckpttool.testing.zips import placed
from ckpttool.verbs.repair import repair
from ckpttool.verbs.seal import seal
from ckpttool.verbs.verify import verify

FILES = strategies.torch_files(strategies.plain_state_dicts())
ANY = strategies.torch_files()


def proved(data: bytes, found: Salvaged | None) -> dict[str, bytes]:
    """The records that are whole and that one of their checksums agrees with."""
    if found is None:
        return {}
    contents = {r.name: data[r.data : r.stop] for r in found.records if r.stop <= len(data)}
    return {
        name: content
        for name, content in contents.items()
        if not content or zlib.crc32(content) in found.checksums[name]
    }


def look(data: bytes) -> Salvaged | None:
    return salvage(Memory(data), DEFAULT)


def errors(path: Path) -> set[str]:
    """The names of a file's findings of error severity."""
    return {
        finding.name
        for subject in verify([path]).subjects
        for finding in subject.findings
        if finding.severity == "error"
    }


@given(data=ANY, cut=st.floats(0, 1))
def test_a_truncation_leaves_exactly_what_lies_wholly_inside(data: bytes, cut: float) -> None:
    kept = data[: int(len(data) * cut)]
    whole = {p.name: data[p.start : p.stop] for p in placed(data) if p.stop + 16 <= len(kept)}
    back = proved(kept, look(kept))
    assert {name: back.get(name) for name in whole} == whole
    assert all(data[p.start : p.stop] == back[p.name] for p in placed(data) if p.name in back)


@given(data=ANY, place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
def test_a_damaged_byte_costs_at_most_the_record_that_it_hit(data: bytes, place: float, bits: int) -> None:
    at = int(len(data) * place)
    bad = data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]
    back = proved(bad, look(bad))
    for p in placed(data):
        if not p.start <= at < p.stop:
            assert back.get(p.name) == data[p.start : p.stop]


@given(data=ANY, place=st.floats(0, 1), inserted=st.binary(min_size=1, max_size=600))
def test_inserted_bytes_cost_at_most_the_record_that_they_hit(data: bytes, place: float, inserted: bytes) -> None:
    assume(b"PK" not in inserted)
    at = int(len(data) * place)
    bad = data[:at] + inserted + data[at:]
    back = proved(bad, look(bad))
    tree = next(p for p in placed(data) if zips.tail_of(p.name) == "data.pkl")
    assume(not tree.header <= at <= tree.stop)
    for p in placed(data):
        if not p.header <= at <= p.stop + 16 and p.start < p.stop:
            assert back.get(p.name) == data[p.start : p.stop]


@given(data=FILES, place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
def test_what_is_repaired_verifies_clean(data: bytes, place: float, bits: int) -> None:
    at = int(len(data) * place)
    bad = data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "bad.pth"), Path(folder, "good.pth")
        source.write_bytes(bad)
        try:
            repair(source, output)
        except CkpttoolError:
            return  # the tree was hit, or no tensor is left
        assert source.read_bytes() == bad
        if output.exists():
            before = Path(folder, "before.pth")
            before.write_bytes(data)
            assert errors(output) <= errors(before)


@given(data=FILES, at=st.integers(0, 1 << 30))
def test_damaged_framing_is_restored_bit_for_bit(data: bytes, at: int) -> None:
    payloads = [(p.start, p.stop) for p in placed(data)]
    framing = [i for i in range(len(data)) if not any(start <= i < stop for start, stop in payloads)]
    at = framing[at % len(framing)]
    bad = data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "bad.pth"), Path(folder, "good.pth")
        source.write_bytes(bad)
        assume(any(True for _ in describe_source(Memory(data)).tensors()))
        report = repair(source, output)
        assert report.exit_code == ExitCode.OK
        assert output.read_bytes() == data


@given(data=strategies.files())
def test_a_sound_file_is_left_alone(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "sound.bin"), Path(folder, "out.pth")
        source.write_bytes(data)
        assume(verify([source]).exit_code == ExitCode.OK)
        report = repair(source, output)
        assert report.exit_code == ExitCode.OK
        assert report.json["sound"] is True
        assert not output.exists()
        assert source.read_bytes() == data


# --- formats without checksums -----------------------------------------------------------------------------------

PLAIN = {"safetensors": ".safetensors", "torch-legacy": ".pth"}


def spans(path: Path) -> dict[str, tuple[int, int]]:
    """Where the bytes of each tensor lie, by key."""
    found = describe(path)
    homes = {e.key: found.storages[t.storage].span for e, t in found.tensors() if t.storage is not None}
    return {key: (span.start, span.stop) for key, span in homes.items() if span is not None}


def held(path: Path) -> dict[str, bytes]:
    data = path.read_bytes()
    return {key.removeprefix("salvaged."): data[a:b] for key, (a, b) in spans(path).items()}


@settings(max_examples=15)  # each writes, seals or reads whole files
@given(kind=st.sampled_from(sorted(PLAIN)), cut=st.floats(0.05, 1, exclude_max=True))
def test_of_any_format_a_truncation_leaves_what_lies_wholly_inside(kind: str, cut: float) -> None:
    data = samples.FILES[kind]()
    with tempfile.TemporaryDirectory() as folder:
        whole, bad, good = (Path(folder, f"{name}{PLAIN[kind]}") for name in ("whole", "bad", "good"))
        whole.write_bytes(data)
        at = int(len(data) * cut)
        inside = {key for key, (_, stop) in spans(whole).items() if stop <= at}
        bad.write_bytes(data[:at])
        try:
            repair(bad, good)
        except CkpttoolError:
            assert not inside
            return
        before = held(whole)
        assert held(good) == {key: before[key] for key in inside}


@given(kind=st.sampled_from(sorted(PLAIN)), place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
def test_a_damaged_byte_of_a_sealed_file_costs_at_most_the_tensor_that_it_hit(
    kind: str, place: float, bits: int
) -> None:
    data = samples.FILES[kind]()
    with tempfile.TemporaryDirectory() as folder:
        path, good = Path(folder, f"file{PLAIN[kind]}"), Path(folder, f"good{PLAIN[kind]}")
        path.write_bytes(data)
        where = sorted((start, stop, key) for key, (start, stop) in spans(path).items())
        start, stop, hit = where[int(place * len(where))]
        before = held(path)
        seal(path)
        at = start + int((stop - start) * (place * len(where) % 1))
        path.write_bytes(data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :])
        report: Any = repair(path, good).json
        assert {one["by"] for one in report["recovered"]} == {"manifest"}
        assert held(good) == {key: content for key, content in before.items() if key != hit}
