"""The allow-list: what is plain data, what needs code, what is unsafe."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from ckpttool.formats import describe
from ckpttool.safety import CONSTRUCTORS, REFERENCES, SCHEMES, may_be_called, standing
from ckpttool.verbs.verify import verify

UNSAFE = [
    "os.system", "posix.system", "nt.system", "subprocess.Popen", "builtins.eval", "builtins.exec",
    "__builtin__.eval",
    "builtins.getattr", "builtins.__import__", "importlib.import_module", "runpy.run_path", "pickle.loads",
    "sys.modules",
    "socket.socket", "shutil.rmtree", "ctypes.CDLL", "webbrowser.open", "code.interact", "pty.spawn", "pdb.run",
    "operator.attrgetter", "functools.partial", "types.CodeType", "types.FunctionType", "copyreg.add_extension",
    "torch.load", "torch.hub.load", "torch.jit.load", "torch.utils.cpp_extension.load", "torch.ops.load_library",
    "torch.serialization.load", "torch._inductor.codecache.compile_file", "torch.storage._load_from_bytes",
    "numpy.load", "numpy.testing._private.utils.runstring", "numpy.f2py.capi_maps.load_f2cmap_file",
    "pip.main", "setuptools.setup", "joblib.load", "dill.loads", "cloudpickle.loads",
    "torchvision.datasets.utils.download_url",
    "collections.namedtuple", "collections.OrderedDict.fromkeys", "datetime.sys", "enum.sys",
    "torch.nn.modules.module.torch",
]  # fmt: skip


@pytest.mark.parametrize("dotted", UNSAFE)
def test_names_that_every_python_has_are_unsafe(dotted: str) -> None:
    module, _, name = dotted.rpartition(".")
    assert standing(module, name) == "unsafe"
    assert may_be_called(module, name) == "unknown"


@pytest.mark.parametrize("name", ["system.__globals__", "Net.os.system", "a.b"])
def test_a_dotted_name_reaches_anything(name: str) -> None:
    assert standing("mypackage", name) == "unsafe"


@pytest.mark.parametrize("module", ["", "os ", "../x", "a-b", "os\0"])
def test_a_module_that_cannot_be_one_is_unsafe(module: str) -> None:
    assert standing(module, "x") == "unsafe"


@pytest.mark.parametrize(
    ("module", "name"),
    [("mypackage.nets", "Net"), ("__main__", "Net"), ("omegaconf.dictconfig", "DictConfig"),
     ("transformers.training_args", "TrainingArguments"), ("torch.nn.modules.linear", "Linear"),
     ("torch.optim.adamw", "AdamW")],
)  # fmt: skip
def test_classes_of_projects_and_frameworks_need_code(module: str, name: str) -> None:
    assert standing(module, name) == "needs-code"
    assert standing(module, name, [f"{module}.{name}"]) == "plain"


@pytest.mark.parametrize(
    ("old", "new"),
    [(("__builtin__", "set"), ("builtins", "set")),
     (("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar")),
     (("torch.tensor", "_rebuild_from_type_v2"), ("torch._tensor", "_rebuild_from_type_v2")),
     (("copy_reg", "_reconstructor"), ("copyreg", "_reconstructor"))],
)  # fmt: skip
def test_old_spellings_stand_as_the_new_ones(old: tuple[str, str], new: tuple[str, str]) -> None:
    assert standing(*old) == standing(*new) == "plain"
    assert may_be_called(*old) == may_be_called(*new)


def test_the_lists_do_not_overlap_and_say_how_a_name_is_called() -> None:
    assert not SCHEMES & CONSTRUCTORS
    assert {may_be_called(*key) for key in REFERENCES - SCHEMES - CONSTRUCTORS} == {"never"}
    assert {may_be_called(*key) for key in SCHEMES} == {"as torch does"}
    assert {may_be_called(*key) for key in CONSTRUCTORS} == {"with plain data"}


def test_trust_is_for_that_very_name() -> None:
    assert standing("os", "system", ["os.system"]) == "plain"
    assert standing("os", "popen", ["os.system"]) == "unsafe"


@given(module=st.sampled_from(sorted(sys.stdlib_module_names)), name=st.text("abcdefghij_", min_size=1, max_size=12))
def test_the_standard_library_is_unsafe_but_for_its_data(module: str, name: str) -> None:
    plain = REFERENCES | SCHEMES | CONSTRUCTORS
    if (module, name) not in plain and module not in ("enum", "copy_reg"):
        assert standing(module, name) == "unsafe"


def test_torchs_own_list_is_plain(torch: object) -> None:
    from torch._weights_only_unpickler import _get_allowed_globals

    refused = []
    for dotted in _get_allowed_globals():
        module, _, name = dotted.rpartition(".")
        if standing(module, name) != "plain":
            refused.append(dotted)
    assert [d for d in refused if d not in {"builtins.getattr"}] == []


def test_real_files_of_plain_data_name_nothing_else(fixtures_dir: Path) -> None:
    for name in ("mlp.pth", "training.pth", "legacy_training.pth", "torch113_training.pth", "dtensor.pth", "jagged.pth",
                 "layouts.pth", "dtypes.pth", "python_values.pth", "optimizers.pth", "lightning.ckpt"):  # fmt: skip
        uses = describe(fixtures_dir / name).globals
        assert {u.dotted for u in uses if standing(u.module, u.name) != "plain"} == set(), name
        assert {
            u.dotted for u in uses if u.odd_calls and may_be_called(u.module, u.name) == "as torch does"
        } == set(), name


def test_getattr_is_needs_code_only_for_methods_of_project_classes(tmp_path: Path) -> None:
    # MMEngine's message hub pickles ``HistoryBuffer.min`` as ``getattr(HistoryBuffer, 'min')``.
    spelled = b"\x80\x02c__builtin__\ngetattr\nq\x00c%s\n%s\nX%c\x00\x00\x00%s\x86R."
    for module, name, attribute, code in (
        (b"mmengine.logging", b"HistoryBuffer", b"min", "CK202"),
        (b"mmengine.logging", b"HistoryBuffer", b"__class__", "CK201"),
        (b"os", b"path", b"join", "CK201"),
        (b"torch", b"nn", b"load", "CK201"),
    ):
        path = tmp_path / "x.pkl"
        path.write_bytes(spelled % (module, name, len(attribute), attribute))
        found = verify([path]).json["targets"][0]["findings"]
        assert code in {f["code"] for f in found}
        assert ("CK201" in {f["code"] for f in found}) == (code == "CK201")
