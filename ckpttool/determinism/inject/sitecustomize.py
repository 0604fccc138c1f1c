"""Put on the path of a traced process: starts the recorder when torch has been imported, then makes way.

Python imports one ``sitecustomize``; the one that this hides is imported in its turn.
"""

import os
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import PathFinder


class _AfterTorch(MetaPathFinder):
    """Lets torch be found as ever, and starts the recorder once it has been executed."""

    def find_spec(self, name, path=None, target=None):
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Executing(spec.loader)
        return spec


class _Executing(Loader):
    def __init__(self, inner):
        self.inner = inner

    def create_module(self, spec):
        return self.inner.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = self.inner
        module.__loader__ = self.inner
        self.inner.exec_module(module)
        from ckpttool.determinism.recorder import install

        install()


def _next_sitecustomize():
    here = os.path.dirname(os.path.abspath(__file__))
    rest = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    spec = PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        import importlib.util

        spec.loader.exec_module(importlib.util.module_from_spec(spec))


if os.environ.get("CKPTTOOL_TRACE_DIR"):
    sys.meta_path.insert(0, _AfterTorch())
_next_sitecustomize()
