"""Files that the safetensors library writes, and its own reader as the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ckpttool import describe

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

DTYPES = (
    "float64 float32 float16 bfloat16 float8_e4m3fn float8_e5m2 int64 int32 int16 int8 uint8 uint16 uint32 uint64 "
    "bool complex64"
).split()


@pytest.fixture
def library(framework: Any) -> Any:
    return framework("safetensors.torch")


def test_every_dtype(torch: Any, library: Any, content: Any, as_content: Any, judged: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    state = {name: torch.tensor([0, 1, 1, 0]).to(getattr(torch, name)).reshape(2, 2) for name in DTYPES}
    library.save_file(state | {"scalar": torch.tensor(2.5), "empty": torch.empty(0, 3)}, path)
    loaded = library.load_file(path)
    assert content(path) == as_content(loaded)
    found = judged(path, require="weights", fail_on="warning")
    assert (found["format"], found["verdict"], found["safety"]) == ("safetensors", "weights-only", "plain")
    assert (found["exit_code"], found["tensors"]) == (0, len(loaded))


def test_metadata_is_what_the_library_reads(framework: Any, torch: Any, library: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    library.save_file({"w": torch.ones(3)}, path, metadata={"format": "pt", "note": "naïve \n"})
    with framework("safetensors").safe_open(path, "pt") as file:
        expected = file.metadata()
    assert describe(path).metadata["metadata"] == expected


def test_order_is_the_files(framework: Any, network: Any, library: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    library.save_file(network.state_dict(), path)
    with framework("safetensors").safe_open(path, "pt") as file:
        offsets = list(file.offset_keys())
    assert [entry.key for entry, _ in describe(path).tensors()] == offsets


def test_a_model_with_tied_weights(torch: Any, library: Any, content: Any, judged: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    model[1].weight = model[0].weight
    library.save_model(model, str(path))
    assert set(content(path)) == {"0.weight", "0.bias", "1.bias"}
    assert judged(path)["parameters"] == sum(p.numel() for p in model.parameters())


def test_what_the_library_refuses_is_damaged(torch: Any, library: Any, judged: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    library.save_file({"a": torch.ones(40), "b": torch.ones(3, 3)}, path)
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:100], whole + b"\0", whole[:8] + b"[" + whole[9:]):
        path.write_bytes(damaged)
        with pytest.raises(Exception, match="deserializing header"):
            library.load_file(path)
        assert judged(path)["exit_code"] == 1
