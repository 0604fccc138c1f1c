"""A model of the user's own as a target: the one place where user code is run, because the user names it.

torch is never imported here: the user's code has done so by the time its tensors are looked at.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Protocol, runtime_checkable

from ckpttool.dtypes import dtype_of
from ckpttool.errors import UsageError, printable
from ckpttool.expressions import Form
from ckpttool.migration.target import Key, Target


class Sized(Protocol):
    """What is looked at of a tensor."""

    @property
    def dtype(self) -> object: ...

    @property
    def shape(self) -> tuple[int, ...]: ...


@runtime_checkable
class Model(Protocol):
    """What is asked of a model: what ``torch.nn.Module`` has."""

    def state_dict(self) -> dict[str, object]: ...

    def named_parameters(self, prefix: str, recurse: bool, remove_duplicate: bool) -> Iterator[tuple[str, Sized]]: ...


def model_target(spec: str) -> Target:
    """Import ``package.module``, call its ``factory`` and take the model's keys, order and ties.

    ``spec`` is ``package.module:factory``; the factory takes no arguments. It is called with torch's meta device as
    default, so that no memory is used, and once more without where that fails. The current folder may be imported
    from. Raises ``UsageError`` with the last line of what the user's code raised.
    """
    module, _, name = spec.partition(":")
    if not module or not name:
        raise UsageError(f"'{printable(spec)}' names no model; write package.module:factory")
    factory = _factory(spec, module, name)
    try:
        with _meta():
            return _target(spec, factory())
    except UsageError:
        raise
    except Exception:
        # Some constructors need values; who fails on the meta device may still succeed elsewhere.
        try:
            return _target(spec, factory())
        except UsageError:
            raise
        except Exception as error:
            raise _told(spec, error) from error


def _factory(spec: str, module: str, name: str) -> Callable[[], object]:
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        found: object = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise _told(spec, error) from error
    except SystemExit as error:
        raise UsageError(f"'{printable(spec)}' – the module ends the program when it is imported") from error
    finally:
        if added and here in sys.path:
            sys.path.remove(here)
    if not callable(found):
        raise UsageError(f"'{printable(spec)}' – is a {type(found).__name__}, not something that can be called")
    return found


def _told(spec: str, error: Exception) -> UsageError:
    """The error as one line, with where the user's code raised it."""
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append((error.filename, error.lineno))
    theirs = [one for one in frames if one[0] != __file__ and not one[0].startswith("<frozen ")]
    where = f" ({theirs[-1][0]}:{theirs[-1][1]})" if theirs else ""
    reason = traceback.format_exception_only(error)[-1].strip()
    return UsageError(f"'{printable(spec)}' – {printable(reason)}{printable(where)}")


def _meta() -> AbstractContextManager[object]:
    torch = sys.modules.get("torch")
    device = getattr(torch, "device", None)
    found = device("meta") if callable(device) else nullcontext()
    return found if isinstance(found, AbstractContextManager) else nullcontext()


def _target(spec: str, model: object) -> Target:
    if isinstance(model, type) or not isinstance(model, Model):
        raise UsageError(
            f"'{printable(spec)}' – gave a {type(model).__name__}, not a model with state_dict and named_parameters"
        )
    state = model.state_dict()
    keys = tuple(_keys(state))
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(prefix="", recurse=True, remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    kept = [[name for name in names if name in state] for names in groups.values()]
    parameters = tuple(names[0] for names in kept if names)
    ties = tuple(tuple(names) for names in kept if len(names) > 1)
    return Target(spec, keys, parameters, ties)


def _keys(state: dict[str, object]) -> Iterator[Key]:
    """The tensors of a state dict; what else is in it (``_extra_state``) is no key of a target."""
    for name, tensor in state.items():
        dtype = dtype_of(str(getattr(tensor, "dtype", "")).removeprefix("torch."))
        if dtype is not None:
            yield name, Form(dtype, tuple(int(size) for size in getattr(tensor, "shape", ())))
