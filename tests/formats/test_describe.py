"""``describe``: which format reads what, and what a checkpoint promises once it is read."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from ckpttool.errors import Unreadable
from ckpttool.formats import describe, describe_source, formats
from ckpttool.source import Memory
from ckpttool.testing.samples import FILES

FORMATS = {
    "mlp.pth": "torch-zip", "legacy.pth": "torch-legacy", "torch_tar.pth": "torch-tar", "script.pt": "torchscript",
    "arrays.pkl": "pickle", "mlp.safetensors": "safetensors", "sharded": "sharded", "trainer/checkpoint-4": "directory",
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_known_by_its_content(fixtures_dir: Path, name: str) -> None:
    checkpoint = describe(fixtures_dir / name)
    assert (checkpoint.format, checkpoint.kind) == (FORMATS[name], "")
    assert checkpoint.root is not None
    assert checkpoint.nbytes > 0


@pytest.mark.parametrize("name", FORMATS)
def test_a_checkpoint_pickles_hashes_and_compares(fixtures_dir: Path, name: str) -> None:
    one, two = describe(fixtures_dir / name), describe(fixtures_dir / name)
    assert one == two
    assert hash(one) == hash(two)
    assert pickle.loads(pickle.dumps(one)) == one


@pytest.mark.parametrize("name", FILES)
def test_one_format_claims_a_sound_file_whatever_its_name(name: str) -> None:
    source = Memory(FILES[name](), "weights.zip")
    assert sum(fmt.sniff(source) for fmt in formats()) == 1
    assert describe_source(source).format == name


def test_the_audit_changes_nothing_about_a_sound_file(fixtures_dir: Path) -> None:
    for name in FORMATS:
        assert describe(fixtures_dir / name, audit=True) == describe(fixtures_dir / name)


def test_what_cannot_be_opened_is_an_error_and_what_is_bad_is_a_result(tmp_path: Path) -> None:
    for where in (tmp_path / "nothing.pt", tmp_path):
        with pytest.raises(Unreadable):
            describe(where)
    (tmp_path / "x.pt").write_bytes(b"PK\3\4garbage")
    assert describe(tmp_path / "x.pt").damage


def test_the_collector_is_left_as_it_was(fixtures_dir: Path) -> None:
    describe(fixtures_dir / "mlp.pth")
    assert gc.isenabled()
    gc.disable()
    try:
        describe(fixtures_dir / "mlp.pth")
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_describing_imports_neither_torch_nor_numpy_nor_what_files_name(fixtures_dir: Path) -> None:
    names = ["mlp.pth", "module.pth", "legacy_module.pth", "mmengine.pth", "trainer/checkpoint-4", "arrays.pkl"]
    script = (
        "import sys\nfrom ckpttool import describe\n"
        f"for name in {[str(fixtures_dir / n) for n in names]!r}: describe(name, audit=True)\n"
        "tops = {m.partition('.')[0] for m in sys.modules}\n"
        "print(sorted(tops & {'torch', 'numpy', 'mmengine', 'research_nets', 'transformers', 'accelerate'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
