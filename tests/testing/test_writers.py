"""What is written here without torch is what torch and safetensors write, byte for byte."""

from __future__ import annotations

import io
from pathlib import Path
from types import ModuleType

import pytest

from ckpttool.testing.edit import dump, edited, format_of, load
from ckpttool.testing.plain import tensor
from ckpttool.testing.samples import FILES, FOLDERS, training_state, weights
from ckpttool.testing.writers import torch_file
from ckpttool.testing.zips import Record, archive, read_records, torch_zip


@pytest.mark.parametrize("name", ["mlp.pth", "training.pth", "optimizers.pth", "lightning.ckpt", "dtypes.pth"])
def test_an_archive_of_torch_is_written_again_byte_for_byte(fixtures_dir: Path, name: str) -> None:
    data = (fixtures_dir / name).read_bytes()
    records = read_records(data)
    assert torch_zip(records, name_hash=records[-1].data[:20].decode()) == data


@pytest.mark.parametrize(
    ("name", "options"), [("aligned.pth", {"alignment": 512}), ("nocrc.pth", {"checksums": False})]
)
def test_so_is_one_with_other_options(fixtures_dir: Path, name: str, options: dict[str, int]) -> None:
    data = (fixtures_dir / name).read_bytes()
    assert archive(read_records(data), **options) == data  # type: ignore[arg-type]


def test_a_pickle_is_the_one_that_torch_writes(torch: ModuleType) -> None:
    file = io.BytesIO()
    torch.save({"w": torch.zeros(2, 3), "e": torch.empty(0), "b": torch.zeros(3, dtype=torch.bfloat16)}, file)
    ours = {"w": tensor((2, 3), bytes(24)), "e": tensor((0,), b""), "b": tensor((3,), bytes(6), "bfloat16")}
    assert read_records(torch_file(ours))[:-1] == read_records(file.getvalue())[:-1]


def test_torch_reads_the_samples(torch: ModuleType) -> None:
    for kind in ("torch-zip", "torch-legacy"):
        state = torch.load(io.BytesIO(FILES[kind]()), weights_only=True)
        model = {name: torch.nn.Parameter(value) for name, value in state["model"].items()}
        torch.optim.AdamW(model.items()).load_state_dict(state["optimizer"])
        assert state["model"]._metadata[""] == {"version": 1}


def test_safetensors_writes_its_sample_alike(torch: ModuleType) -> None:
    library = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    data = FILES["safetensors"]()
    assert library.save(library.load(data), {"format": "pt"}) == data


@pytest.mark.parametrize("kind", FILES)
def test_reading_and_writing_again_changes_nothing(kind: str) -> None:
    data = FILES[kind]()
    assert format_of(data) == kind
    if kind != "safetensors":  # its metadata is not part of the tree
        assert dump(load(data), data) == data


def test_an_edit_changes_what_it_says_and_nothing_else() -> None:
    def change(value: dict[str, object]) -> None:
        value["epoch"] = 5

    before, after = load(FILES["torch-zip"]()), load(edited(FILES["torch-zip"](), change))
    assert after.pop("epoch") == 5
    assert before.pop("epoch") == 1
    assert torch_file(before) == torch_file(after)


def test_samples_are_the_same_bytes_every_time() -> None:
    assert all(make() == make() for make in (*FILES.values(), *FOLDERS.values()))
    assert torch_file(weights(seed=1)) != torch_file(weights(seed=2))
    assert torch_file(training_state(seed=1)) != torch_file(training_state(seed=2))


def test_a_record_may_hide_from_the_directory() -> None:
    data = archive([Record("a/data.pkl", b"N."), Record("a/evil.pkl", b"N.", listed=False)])
    assert [record.name for record in read_records(data)] == ["a/data.pkl"]
    assert b"a/evil.pkl" in data
