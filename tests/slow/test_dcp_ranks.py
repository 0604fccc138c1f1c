"""Distributed checkpoints that several real processes wrote: sharded models, meshes, uneven and empty shards."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest

from ckpttool.formats import describe
from ckpttool.verbs.convert import convert
from ckpttool.verbs.diff import diff
from ckpttool.verbs.verify import verify

torch = pytest.importorskip("torch", reason="torch is not installed")
pytestmark = pytest.mark.slow

SAVE = textwrap.dedent("""
    import sys
    from datetime import timedelta
    import torch
    import torch.distributed as distributed
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    folder, store, world, rank = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    made = distributed.FileStore(store, world)
    distributed.init_process_group("gloo", store=made, rank=rank, world_size=world, timeout=timedelta(seconds=120))
    mesh = init_device_mesh("cpu", (2, 2) if world == 4 else (world,))
    drawn = torch.Generator().manual_seed(5)

    def draw(*shape):
        return torch.randn(*shape, generator=drawn)

    def spread(value, *placements):
        wanted = [*placements, Replicate(), Replicate()][: mesh.ndim]
        return distribute_tensor(value, mesh, wanted, src_data_rank=None)

    tensors = {
        "rows": spread(draw(7, 5), Shard(0)), "columns": spread(draw(5, 7), Shard(1)),
        "both": spread(draw(9, 11), Shard(0), Shard(1)), "deep": spread(draw(3, 5, 7), Shard(1), Shard(2)),
        "tiny": spread(draw(1, 3), Shard(0), Shard(1)), "short": spread(draw(3).bfloat16(), Shard(0), Shard(0)),
        "complex": spread(draw(5, 4).to(torch.complex128), Shard(1)), "empty": spread(torch.zeros(0, 3), Shard(0)),
        "small": spread(draw(6, 4).to(torch.float8_e4m3fn), Shard(0), Shard(1)),
        "unsigned": spread(torch.arange(12).to(torch.uint16).reshape(4, 3), Shard(0)),
        "turned": spread(draw(6, 8).t(), Shard(0), Shard(1)), "plain": torch.arange(6),
    }
    torch.manual_seed(1)
    layers = torch.nn.Linear(5, 7), torch.nn.BatchNorm1d(7), torch.nn.Linear(7, 3)
    model = fully_shard(torch.nn.Sequential(*layers), mesh=init_device_mesh("cpu", (world,)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    torch.manual_seed(2)
    model(torch.randn(8, 5)).sum().backward()
    optimizer.step()
    weights, moments = get_state_dict(model, optimizer)
    state = {"model": weights, "optimizer": moments, "more": tensors, "meta": {"epoch": 3, "list": [1, {"a": 2}]}}
    dcp.save(state, checkpoint_id=folder)
    distributed.destroy_process_group()
""")


def saved(folder: Path, world: int) -> Path:
    script, store = folder / "save.py", folder / f"store{world}"
    script.write_text(SAVE, encoding="utf-8")
    step = folder / f"world-{world}"
    command = [sys.executable, "-W", "ignore", str(script), str(step), str(store), str(world)]
    running = [subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE) for rank in range(world)]
    for process in running:
        _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said.decode()[-2000:]
    return step


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("steps")
    return {world: saved(folder, world) for world in (1, 2, 4)}


@pytest.mark.parametrize("world", [1, 2, 4])
def test_it_is_what_torch_makes_one_file_of(steps: dict[int, Path], tmp_path: Path, world: int) -> None:
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp_to_torch_save(steps[world], tmp_path / "oracle.pth")
    assert not describe(steps[world]).damage
    assert verify([steps[world]]).exit_code == 0
    report = diff(steps[world], tmp_path / "oracle.pth")
    assert report.exit_code == 0, report.json
    convert(steps[world], tmp_path / "out.pth", verify=True)
    ours, theirs = (torch.load(tmp_path / name, weights_only=False) for name in ("out.pth", "oracle.pth"))
    for name, value in theirs["more"].items():
        same = ours["more"][name].flatten().view(torch.uint8), value.flatten().view(torch.uint8)
        assert torch.equal(*same), name


@pytest.mark.parametrize("world", [1, 4])
def test_another_world_size_holds_the_same_tensors(steps: dict[int, Path], world: int) -> None:
    report = diff(steps[2], steps[world], only=["more.*", "meta.*"])
    assert report.exit_code == 0, report.json
