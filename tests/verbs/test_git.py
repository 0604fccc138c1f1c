"""A real git repository shows checkpoints as text: what changed, where, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ckpttool.errors import UsageError
from ckpttool.testing.plain import tensor
from ckpttool.testing.writers import torch_file
from ckpttool.verbs.git_setup import PATTERNS, git_setup
from ckpttool.verbs.textconv import pointer, textconv

ROOT = Path(__file__).parents[2]
COMMAND = f"'{sys.executable}' -m ckpttool"

Git = Callable[..., str]

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def state(second: float = 2.0, epoch: int = 1) -> bytes:
    return torch_file({
        "model": {
            "layers.0.weight": tensor((2,), struct.pack("<2f", 1, second)),
            "layers.1.weight": tensor((2,), struct.pack("<2f", 3, 4)),
        },
        "params": [0, 1, 2, 3, 7],
        "epoch": epoch,
    })  # fmt: skip


def safetensors(second: float) -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return struct.pack("<Q", len(header)) + header + struct.pack("<2f", 1, second)


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """Runs git in a fresh repository, whose user has no settings of their own."""
    home, top = tmp_path / "home", tmp_path / "repository"
    home.mkdir()
    top.mkdir()
    for name in [name for name in os.environ if name.startswith(("GIT_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.chdir(top)

    def run(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("init", "-q", "-b", "main")
    run("config", "user.name", "A")
    run("config", "user.email", "a@example.org")
    return run


def commit(git: Git, name: str, data: bytes) -> None:
    Path(name).write_bytes(data)
    git("add", "-A")
    git("commit", "-qm", name)


def changes(diff: str) -> list[str]:
    return [line for line in diff.splitlines() if line.startswith(("+", "-")) and line[:3] not in ("+++", "---")]


def test_git_diff_and_log_show_the_changed_tensor_alone(git: Git) -> None:
    git_setup(command=COMMAND)
    commit(git, "model.pth", state())
    Path("model.pth").write_bytes(state(second=2.5))
    removed, added = changes(git("diff"))
    assert removed.startswith("-model.layers.0.weight  float32 [2]  crc32:")
    assert added.startswith("+model.layers.0.weight  float32 [2]  crc32:")
    assert removed != added.replace("+", "-", 1)
    commit(git, "model.pth", state(second=2.5, epoch=2))
    assert changes(git("log", "-p", "-1", "--format=%s"))[-2:] == ["-epoch: 1", "+epoch: 2"]


def test_formats_without_checksums_are_read(git: Git) -> None:
    git_setup(command=COMMAND)
    commit(git, "model.safetensors", safetensors(2))
    Path("model.safetensors").write_bytes(safetensors(2.0000002))
    removed, added = changes(git("diff"))
    assert removed.startswith("-w  float32 [2]  xxh3:")
    assert added.startswith("+w  float32 [2]  xxh3:")


def test_what_is_no_checkpoint_does_not_stop_git(git: Git) -> None:
    git_setup(command=COMMAND)
    commit(git, "model.pth", state())
    Path("model.pth").write_bytes(state()[:-100])
    assert "+damage: truncated" in git("diff")
    Path("model.pth").write_bytes(b"")
    assert "+not a checkpoint: an empty file" in git("diff")
    Path("model.pth").write_bytes(b"\x80\x02" + bytes(range(256)))
    assert "-format: torch-zip" in git("diff")


def test_lfs_pointers_show_the_digest_or_the_file_itself(git: Git) -> None:
    git_setup(command=COMMAND)
    pointer_ = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12345\n"
    commit(git, "model.pth", pointer_.format("a" * 64).encode())
    Path("model.pth").write_bytes(pointer_.format("b" * 64).encode())
    assert changes(git("diff")) == [f"-oid: sha256:{'a' * 64}", f"+oid: sha256:{'b' * 64}"]
    for letter, data in (("a", state()), ("b", state(second=9))):
        home = Path(".git/lfs/objects", letter * 2, letter * 2)
        home.mkdir(parents=True)
        (home / (letter * 64)).write_bytes(data)
    assert [line.split()[0] for line in changes(git("diff"))] == ["-model.layers.0.weight", "+model.layers.0.weight"]


def test_a_second_set_up_changes_nothing(git: Git) -> None:
    first = git_setup(command=COMMAND).data
    assert first["written"] is True
    assert first["lines"] == [f"{pattern} diff=ckpttool" for pattern in PATTERNS]
    files = Path(".gitattributes"), Path(".git/config")
    before = [file.read_bytes() for file in files]
    second = git_setup(command=COMMAND).data
    assert (second["written"], second["lines"], second["settings"]) == (False, [], {})
    assert [file.read_bytes() for file in files] == before


def test_a_dry_run_writes_nothing(git: Git) -> None:
    config = Path(".git/config").read_bytes()
    report = git_setup(command=COMMAND, dry_run=True)
    assert report.data["lines"]
    assert not Path(".gitattributes").exists()
    assert Path(".git/config").read_bytes() == config


def test_lines_that_are_there_stay_and_lfs_keeps_its_filter(git: Git) -> None:
    Path(".gitattributes").write_text("# ours\n*.pth filter=lfs diff=lfs merge=lfs -text")
    git_setup(command=COMMAND, patterns=["*.pth"])
    assert Path(".gitattributes").read_text() == (
        "# ours\n*.pth filter=lfs diff=lfs merge=lfs -text\n*.pth diff=ckpttool\n"
    )
    attributes = git("check-attr", "filter", "diff", "--", "a/model.pth")
    assert "filter: lfs" in attributes
    assert "diff: ckpttool" in attributes


def test_a_line_below_that_undoes_ours_is_answered(git: Git) -> None:
    Path(".gitattributes").write_text("*.pth diff=ckpttool\n*.pth -diff\n")
    git_setup(command=COMMAND, patterns=["*.pth"])
    assert "diff: ckpttool" in git("check-attr", "diff", "--", "model.pth")


@pytest.mark.parametrize("named", [None, "mine"])
def test_global_set_up_leaves_the_repository_alone(git: Git, named: str | None) -> None:
    if named:
        git("config", "--global", "core.attributesFile", f"~/{named}")
    git_setup("global", command=COMMAND)
    assert not Path(".gitattributes").exists()
    commit(git, "model.pth", state())
    Path("model.pth").write_bytes(state(second=3))
    assert len(changes(git("diff"))) == 2


def test_outside_of_a_repository_only_global_works(git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="--global"):
        git_setup()
    assert git_setup("global").data["written"] is True


@pytest.mark.parametrize("pattern", ["", "a b", "#x", "!x", '"x"'])
def test_patterns_that_git_reads_otherwise_are_refused(git: Git, pattern: str) -> None:
    with pytest.raises(UsageError):
        git_setup(patterns=[pattern])


def test_lines_are_in_the_files_order_and_lists_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(state())
    lines = list(textconv(str(path)))
    assert [line.split()[0] for line in lines] == [
        "format:", "model.layers.0.weight", "model.layers.1.weight", "params:", "epoch:",
    ]  # fmt: skip
    assert "params: [0..3, 7]" in lines


def test_content_digests_agree_between_formats(tmp_path: Path) -> None:
    zipped, flat = tmp_path / "a.pth", tmp_path / "a.safetensors"
    zipped.write_bytes(torch_file({"w": tensor((2,), struct.pack("<2f", 1, 2))}))
    flat.write_bytes(safetensors(2))
    assert list(textconv(str(zipped), content=True))[1] == list(textconv(str(flat), content=True))[1]


def test_order_in_lists_of_integers_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(torch_file({"params": [2, 1, 0, 5, 6, 7], "steps": {5: 1, 7: 2}, "flag": True}))
    assert list(textconv(str(path)))[1:] == ["params: [2, 1, 0, 5..7]", "steps.5: 1", "steps.7: 2", "flag: true"]


def test_long_values_are_told_apart_by_their_digests(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    seen = set()
    for end in "xy":
        path.write_bytes(torch_file({"config": "word\n" * 1000 + end, "seeds": [7**i % 1000003 for i in range(625)]}))
        first, second = list(textconv(str(path)))[1:]
        assert len(first) < 300 > len(second)
        assert "\n" not in first
        seen.add(first)
    assert len(seen) == 2


def test_names_cannot_act_on_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(torch_file({"a\x1b[31m\nb": "c\u202e"}))
    assert list(textconv(str(path)))[1] == 'a\\x1b[31m\\nb: "c\\u202e"'


def test_only_whole_pointers_are_followed(tmp_path: Path) -> None:
    path = tmp_path / "p"
    head = "version https://git-lfs.github.com/spec/v1\noid sha256:"
    path.write_text(f"{head}{'a' * 64}\nsize 5\n")
    assert pointer(str(path)) == "a" * 64
    path.write_text(f"{head}../../../../etc/passwd\n")
    assert pointer(str(path)) is None


def test_the_external_driver_compares_in_git_diff_and_leaves_log_to_lines(git: Git) -> None:
    git_setup(command=COMMAND, external=True)
    commit(git, "model.pth", state())
    Path("model.pth").write_bytes(state(second=2.5))
    shown = git("diff")
    assert "a/model.pth → b/model.pth" in shown
    assert "model.layers.0.weight" in shown
    assert "rewritten" in shown
    assert len(changes(git("diff", "--no-ext-diff"))) == 2
    commit(git, "model.pth", state(second=2.5))
    assert len(changes(git("log", "-p", "-1", "--format=%s"))) == 2
    git("rm", "-q", "--cached", "model.pth")
    assert "-model.layers.0.weight" in git("diff", "--cached")
