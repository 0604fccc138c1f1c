"""``verify``: its JSON, exit codes, wishes, targets that cannot be read, files that are being written."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ckpttool.errors import ExitCode
from ckpttool.formats import describe_source
from ckpttool.model import MAX_DEPTH
from ckpttool.report import Report
from ckpttool.source import LocalFile, Memory
from ckpttool.testing.plain import Call, Global, tensor
from ckpttool.testing.samples import training_state, weights
from ckpttool.testing.writers import legacy_file, safetensors_file, sharded_files, torch_file
from ckpttool.verbs.verify import verify

TARGET = {
    "path", "format", "writer", "verdict", "missing", "bytes", "tensors", "parameters", "findings",
    "integrity", "safety", "readiness", "coverage",
}  # fmt: skip
FINDING = {"code", "name", "severity", "where", "message", "facts", "hint"}

WEIGHTS = torch_file(weights())
TRAINING = torch_file(training_state())
EVIL = torch_file({"a": Call(Global("os", "system"), ("true",))})
OWN = torch_file({"config": Call(Global("project.config", "Config"), (), {"lr": 1.0}, how="NEWOBJ")})


def one(report: Report) -> dict[str, Any]:
    (target,) = report.json["targets"]  # type: ignore[misc]
    assert isinstance(target, dict)
    return target


def names(report: Report) -> set[str]:
    return {f["name"] for f in one(report)["findings"]}


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.fixture
def put(tmp_path: Path) -> Any:
    def write(data: bytes, name: str = "x.pt") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return str(path)

    return write


# --- the contract ------------------------------------------------------------------------------------------


def test_the_json_has_the_keys_of_the_contract(put: Any) -> None:
    report = verify([put(flipped(WEIGHTS, 3000))])
    data = json.loads(json.dumps(report.json, allow_nan=False))
    assert (data["schema"], data["ok"], data["exit_code"]) == ("ckpttool.verify/1", False, 1)
    target = one(report)
    assert target.keys() >= TARGET
    assert target["findings"]
    for found in target["findings"]:
        assert found.keys() == FINDING
        assert found["severity"] in ("error", "warning", "info")


def test_the_numbers_are_those_of_the_file(put: Any) -> None:
    target = one(verify([put(WEIGHTS)]))
    assert target["bytes"] == len(WEIGHTS)
    assert target["tensors"] == 4
    assert target["parameters"] == 48 * 64 + 32 * 64 + 32 + 8 * 32
    assert target["format"] == "torch-zip"
    assert (target["integrity"], target["safety"]) == ("proved", "plain")
    assert target["coverage"]["tensors_measured"] == 4
    assert target["coverage"]["unchecked"] == []


VERDICTS = {
    "not-a-checkpoint": b"<html>sign in</html>",
    "damaged": flipped(EVIL, len(EVIL) - 60),
    "unsafe": EVIL,
    "weights-only": WEIGHTS,
    "resumable": TRAINING,
}


@pytest.mark.parametrize("verdict", VERDICTS)
def test_each_verdict(put: Any, verdict: str) -> None:
    report = verify([put(VERDICTS[verdict])])
    target = one(report)
    assert target["verdict"] == verdict
    assert report.exit_code == (ExitCode.OK if verdict in ("weights-only", "resumable") else ExitCode.FINDINGS)
    assert report.json["ok"] is (report.exit_code == 0)


def test_every_flip_of_a_payload_byte_is_damage(put: Any) -> None:
    span = describe_source(Memory(WEIGHTS)).storages[2].span
    assert span is not None
    for at in range(span.start, span.stop, 16):
        report = verify([put(flipped(WEIGHTS, at))])
        assert one(report)["verdict"] == "damaged"
        assert "crc-mismatch" in names(report)
        assert one(report)["coverage"]["bytes_proved"] < len(WEIGHTS)


@pytest.mark.parametrize("data", [legacy_file(weights()), safetensors_file(weights())])
def test_formats_without_checksums_are_unprovable(put: Any, data: bytes) -> None:
    target = one(verify([put(data)]))
    assert (target["verdict"], target["integrity"]) == ("weights-only", "unprovable")
    assert target["coverage"]["unchecked"][0]["why"] == "no checksum is recorded for them"


# --- wishes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "require", "code"),
    [(WEIGHTS, "weights", 0), (WEIGHTS, "resumable", 1), (WEIGHTS, "exact", 1),
     (TRAINING, "resumable", 0), (TRAINING, "weights", 0), (TRAINING, "exact", 1)],
)  # fmt: skip
def test_require(put: Any, data: bytes, require: str, code: int) -> None:
    report = verify([put(data)], require=require)
    assert report.exit_code == code
    assert ("requirement-not-met" in names(report)) is bool(code)


def test_an_unmet_requirement_fails_even_where_no_finding_does(put: Any) -> None:
    assert verify([put(WEIGHTS)], require="exact", fail_on="never").exit_code == 1
    assert verify([put(WEIGHTS)], require="exact").exit_code == 1


@pytest.mark.parametrize(("fail_on", "code"), [("never", 0), ("error", 0), ("warning", 1), ("info", 1)])
def test_fail_on(put: Any, fail_on: Any, code: int) -> None:
    report = verify([put(WEIGHTS + b"trailing")], fail_on=fail_on)
    assert names(report) >= {"trailing-bytes"}
    assert report.exit_code == code
    assert verify([put(EVIL)], fail_on="never").exit_code == 0


def test_ignored_rules_neither_show_nor_fail(put: Any) -> None:
    path = put(WEIGHTS + b"trailing")
    for ignored in ("CK112", "trailing-bytes", "ck112"):
        report = verify([path], ignore=[ignored], fail_on="warning")
        assert "trailing-bytes" not in names(report)
        assert report.exit_code == 0


def test_trusted_names_are_plain_data(put: Any) -> None:
    path = put(OWN)
    assert one(verify([path]))["safety"] == "needs-code"
    assert "needs-code" in names(verify([path]))
    trusted = verify([path], trust=["project.config.Config"])
    assert one(trusted)["safety"] == "plain"
    assert one(verify([put(EVIL)], trust=["os.system"]))["safety"] == "plain"
    assert one(verify([put(EVIL)], trust=["os.popen"]))["safety"] == "unsafe"


def test_headers_only_reads_no_content_and_says_so(put: Any) -> None:
    span = describe_source(Memory(WEIGHTS)).storages[0].span
    assert span is not None
    target = one(verify([put(flipped(WEIGHTS, span.start))], headers_only=True))
    assert (target["verdict"], target["integrity"]) == ("weights-only", "unchecked")
    assert target["coverage"]["bytes_read"] == 0
    assert target["coverage"]["unchecked"] == [{"what": "content", "why": "headers only"}]


def test_executors_and_jobs_change_nothing(put: Any) -> None:
    paths = [put(flipped(TRAINING, 40_000), "a.pt"), put(EVIL, "b.pt")]
    plain = verify(paths).json
    assert verify(paths, jobs=1).json == verify(paths, jobs=3).json == plain
    with ThreadPoolExecutor(2) as pool:
        assert verify(paths, executor=pool).json == plain
        assert pool.submit(int).result() == 0, "the caller's executor stays open"


def test_findings_are_worst_first_and_stable(put: Any) -> None:
    path = put(EVIL + b"trailing")
    first = one(verify([path]))["findings"]
    assert first == one(verify([path]))["findings"]
    order = [(("error", "warning", "info").index(f["severity"]), f["code"]) for f in first]
    assert order == sorted(order)
    assert len(order) > 1


# --- targets that cannot be read ---------------------------------------------------------------------------


def unreadable(tmp_path: Path, name: str) -> Path:
    path = tmp_path / "target"
    if name == "FIFO":
        os.mkfifo(path)
    elif name == "loop":
        path.symlink_to(path)
    elif name == "socket":
        here = Path.cwd()
        os.chdir(tmp_path)  # the address of a socket is short
        try:
            socket.socket(socket.AF_UNIX).bind("target")
        finally:
            os.chdir(here)
    elif name == "permission":
        path.write_bytes(WEIGHTS)
        path.chmod(0)
    elif name == "empty folder":
        path.mkdir()
    elif name == "device":
        path.symlink_to("/dev/zero")
    elif name == "dangling":
        path.symlink_to(tmp_path / "nothing")
    elif name == "below a file":
        path.write_bytes(b"")
        path = path / "x.pt"
    elif name == "NUL":
        path = Path(str(path) + "\0")
    return path


REASONS = {
    "missing": "no such file", "FIFO": "a FIFO", "loop": "a loop of symbolic links", "socket": "",
    "device": "a character device", "empty folder": "holds no checkpoint", "dangling": "no such file",
    "below a file": "", "permission": "permission denied", "NUL": "not a possible path",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", REASONS)
def test_one_clear_error_and_the_other_targets_still_run(tmp_path: Path, put: Any, name: str) -> None:
    if name == "permission" and os.geteuid() == 0:
        pytest.skip("root may read everything")
    path = unreadable(tmp_path / "", name)
    report = verify([str(path), put(WEIGHTS, "good/x.pt")])
    assert report.exit_code == ExitCode.IMPOSSIBLE
    failed, good = report.json["targets"]  # type: ignore[misc]
    assert isinstance(failed, dict)
    assert isinstance(good, dict)
    assert good["verdict"] == "weights-only"
    assert failed["verdict"] is None
    assert REASONS[name] in str(failed["error"])
    assert "\n" not in str(failed["error"])
    assert [s.failed for s in report.subjects] == [True, False]


def test_of_several_targets_the_highest_exit_code_wins(put: Any) -> None:
    good, bad, missing = put(WEIGHTS, "good.pt"), put(EVIL, "bad.pt"), "/nowhere/x.pt"
    assert verify([good]).exit_code == 0
    assert verify([good, bad]).exit_code == 1
    assert verify([missing, bad, good]).exit_code == 2


# --- folders -----------------------------------------------------------------------------------------------


def test_a_run_directory_stands_for_its_checkpoints(put: Any, tmp_path: Path) -> None:
    for step in (1, 2, 10):
        put(TRAINING, f"run/step-{step}.pt")
    put(b"notes", "run/notes.txt")
    report = verify([str(tmp_path / "run")])
    paths = [Path(t["path"]).name for t in report.json["targets"]]  # type: ignore[index, call-overload, union-attr]
    assert paths == ["step-1.pt", "step-2.pt", "step-10.pt"]


def test_shards_are_one_target(put: Any, tmp_path: Path) -> None:
    for name, data in sharded_files(weights()).items():
        put(data, f"run/{name}")
    target = one(verify([str(tmp_path / "run")]))
    assert (target["format"], target["tensors"]) == ("sharded", 4)
    (tmp_path / "run" / "model-00002-of-00002.safetensors").unlink()
    report = verify([str(tmp_path / "run")])
    assert one(report)["verdict"] == "damaged"
    assert "missing-shard" in names(report)


# --- being written -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["x.pt.tmp", "x.pt.part", "x.pt.tmp1234", ".tmp-x.pt", "x.safetensors.incomplete", "x.pt~"]
)
def test_temporary_names_are_in_progress(put: Any, name: str) -> None:
    assert "in-progress" in names(verify([put(WEIGHTS, name)]))


def test_ordinary_names_are_not(put: Any) -> None:
    for name in ("x.pt", "template.pt", "partial_model.pt", "tmp.pt"):
        assert "in-progress" not in names(verify([put(WEIGHTS, name)]))


class Growing(LocalFile):
    """A file to which its writer adds while it is read."""

    def read(self, start: int, nbytes: int) -> bytes:
        with Path(self.name).open("ab") as file:
            file.write(b"more")
        return super().read(start, nbytes)


def test_a_file_that_grows_while_it_is_described_is_in_progress(put: Any) -> None:
    source = Growing(put(WEIGHTS))
    assert "in-progress" in {d.rule for d in describe_source(source).damage}
    source.close()


def test_a_file_that_grows_while_it_is_measured_is_in_progress(put: Any) -> None:
    path = put(torch_file({str(i): tensor((1 << 16,), bytes(1 << 18)) for i in range(40)}))
    wrote = threading.Event()

    def grow(done: int, total: int) -> None:
        if not wrote.is_set():
            wrote.set()
            with Path(path).open("ab") as file:
                file.write(b"more")

    report = verify([path], progress=grow)
    assert wrote.is_set()
    assert "in-progress" in names(report)


# --- odd files ---------------------------------------------------------------------------------------------


def test_a_deep_tree_is_a_result(put: Any) -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH // 2):
        value = OrderedDict(a=value)
    assert one(verify([put(torch_file(value))]))["verdict"] == "weights-only"


SOUND = """
mlp.pth training.pth training_next.pth tied.pth legacy.pth legacy_training.pth legacy_views.pth
aligned.pth nocrc.pth rezipped.pth ddp.pth compile.pth dtensor.pth jagged.pth layouts.pth
optimizers.pth schedulers.pth python_values.pth torch113.pth torch113_training.pth
torch113_legacy.pth script.pt torch_tar.pth unnamed_optimizer.pth mlp.safetensors
lightning.ckpt fabric.ckpt ignite.pt checkpoint.pth.tar detectron2.pth sharded sharded_bin
trainer accelerate nanogpt timm peft deepspeed module.pth legacy_module.pth
""".split()


def test_real_files_without_a_defect_have_no_error(fixtures_dir: Path) -> None:
    report = verify([fixtures_dir / name for name in SOUND])
    wrong = [
        (t["path"], f["name"], f["message"])
        for t in report.json["targets"]  # type: ignore[union-attr]
        for f in t["findings"]  # type: ignore[index, call-overload, union-attr]
        if f["severity"] == "error"  # type: ignore[index, call-overload]
    ]
    assert wrong == []
    assert report.exit_code == ExitCode.OK


def test_a_complete_training_state_is_exact(fixtures_dir: Path) -> None:
    report = verify([fixtures_dir / "training.pth"], require="exact", fail_on="warning")
    assert (one(report)["verdict"], one(report)["missing"], report.exit_code) == ("exact", [], 0)


@pytest.mark.parametrize("name", ["dtensor.pth", "layouts.pth", "jagged.pth", "script.pt", "deflated.pth"])
def test_coverage_counts_what_tensors_are_made_of_and_inflated_bytes(fixtures_dir: Path, name: str) -> None:
    found = verify([fixtures_dir / name]).json["targets"][0]["coverage"]
    assert found["tensors_measured"] == found["tensors"]
    assert found["bytes_proved"] == found["bytes_read"] > 0
