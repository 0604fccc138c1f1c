"""Files of torch itself, damaged in every way that people report, and what its own loader says of the repaired ones."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest

from ckpttool.formats.zip_salvage import salvage
from ckpttool.limits import DEFAULT
from ckpttool.source import Memory
from ckpttool.testing.zips import placed
from ckpttool.verbs.repair import repair

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

LAYERS = 37


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model and AdamW: 300 tensors of several sizes."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(*[torch.nn.Linear(96, 96) for _ in range(LAYERS)], torch.nn.LayerNorm(96, bias=False))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 96)).sum().backward()
    optimizer.step()
    place = tmp_path_factory.mktemp("run") / "last.pth"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, place)
    return place


def flat(value: Any, key: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for name, one in value.items() for k, v in flat(one, f"{key}.{name}").items()}
    return {key.lstrip("."): value} if torch.is_tensor(value) else {}


@pytest.mark.parametrize("kept", [0.25, 0.5, 0.75, 0.99])
def test_what_is_left_of_a_cut_file_is_all_got_back_and_proved(path: Path, tmp_path: Path, kept: float) -> None:
    data = path.read_bytes()
    cut = data[: int(len(data) * kept)]
    found = salvage(Memory(cut), DEFAULT)
    assert found is not None
    tensors = [p for p in placed(data) if p.name.rpartition("/")[2].isdigit()]
    assert len(tensors) == 300
    inside = {p.name: data[p.start : p.stop] for p in tensors if p.stop + 16 <= len(cut)}
    records = {r.name: r for r in found.records}
    for name, content in inside.items():
        record = records[name]
        assert cut[record.data : record.stop] == content
        assert zlib.crc32(content) in found.checksums[name]
    total = sum(p.stop - p.start for p in tensors)
    share = sum(map(len, inside.values())) / total
    assert share > kept - 0.012  # all but the tensor that the cut goes through
    (tmp_path / "cut.pth").write_bytes(cut)
    report: Any = repair(tmp_path / "cut.pth", tmp_path / "saved.pth").json
    assert report["payload"]["proved"] == sum(map(len, inside.values()))
    assert report["payload"]["kept"] == report["payload"]["proved"]
    assert {one["proof"] for one in report["recovered"]} == {"proved"}
    original, saved = flat(torch.load(path)), flat(torch.load(tmp_path / "saved.pth", weights_only=True))
    assert saved
    for key, tensor in saved.items():
        assert torch.equal(tensor, original[key.removeprefix("salvaged.")])


def test_optimizer_state_that_is_left_is_taken_by_the_optimizer(path: Path, tmp_path: Path) -> None:
    data = path.read_bytes()
    (tmp_path / "cut.pth").write_bytes(data[: int(len(data) * 0.6)])
    repair(tmp_path / "cut.pth", tmp_path / "saved.pth")
    saved = torch.load(tmp_path / "saved.pth", weights_only=True)
    model = torch.nn.Sequential(*[torch.nn.Linear(96, 96) for _ in range(LAYERS)], torch.nn.LayerNorm(96, bias=False))
    model.load_state_dict(saved["model"], strict=False)
    optimizer = torch.optim.AdamW(model.parameters())
    optimizer.load_state_dict(saved["optimizer"])
    model(torch.randn(4, 96)).sum().backward()
    optimizer.step()


def damages(data: bytes) -> dict[str, bytes]:
    """Metadata damaged in every way; no payload is touched."""
    places = placed(data)
    edges = [0, *(edge for p in sorted(places, key=lambda p: p.start) for edge in (p.start, p.stop)), len(data)]
    framing = [at for start, stop in zip(edges[::2], edges[1::2], strict=True) for at in range(start, stop)]
    found = {f"byte {at}": data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :] for at in framing[::1201]}
    entry = places[0].entry
    for stop in (entry, entry + 99, len(data) - 7, places[-1].header, places[-1].start + 8, places[-2].header):
        found[f"cut at {stop}"] = data[:stop]
    for signature in (b"PK\3\4", b"PK\7\10", b"PK\1\2"):
        found[f"without {signature!r}"] = data.replace(signature, b"\0\0\0\0")
    found["without directory and headers"] = data.replace(b"PK\1\2", b"abcd").replace(b"PK\3\4", b"abcd")
    found["last page zero"] = data[:-4096] + bytes(4096)
    found["bytes before"] = b"HTTP/1.1 200 OK\r\n\r\n" + data
    found["bytes behind"] = data + bytes(5000)
    middle = len(data) // 2
    found["a block put in"] = data[:middle] + bytes(range(256)) * 2 + data[middle:]
    return found


def test_damaged_framing_is_restored_bit_for_bit(path: Path, tmp_path: Path) -> None:
    data = path.read_bytes()
    for name, bad in damages(data).items():
        (tmp_path / "bad.pth").write_bytes(bad)
        repair(tmp_path / "bad.pth", tmp_path / "good.pth", force=True)
        assert (tmp_path / "good.pth").read_bytes() == data, name
        (tmp_path / "good.pth").unlink()


@pytest.mark.parametrize("fill", ["zero", "nan"])
def test_completed_tensors_load_with_their_shapes(path: Path, tmp_path: Path, fill: str) -> None:
    data = path.read_bytes()
    (tmp_path / "cut.pth").write_bytes(data[: len(data) // 2])
    repair(tmp_path / "cut.pth", tmp_path / "saved.pth", fill=fill)
    original, saved = flat(torch.load(path)), flat(torch.load(tmp_path / "saved.pth"))
    assert {k: (v.shape, v.dtype) for k, v in saved.items()} == {k: (v.shape, v.dtype) for k, v in original.items()}
    made = saved["optimizer.state.74.exp_avg"]
    assert bool(made.isnan().all() if fill == "nan" else (made == 0).all())


def test_the_old_format(path: Path, tmp_path: Path) -> None:
    state = torch.load(path)
    old = tmp_path / "old.pth"
    torch.save(state, old, _use_new_zipfile_serialization=False)
    old.write_bytes(old.read_bytes()[:-50_000])
    report: Any = repair(old, tmp_path / "saved.pth").json
    original, saved = flat(state), flat(torch.load(tmp_path / "saved.pth", weights_only=True))
    assert report["lost"]
    assert all(torch.equal(tensor, original[key.removeprefix("salvaged.")]) for key, tensor in saved.items())
