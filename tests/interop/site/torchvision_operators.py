"""torchvision beside a torch that its compiled operators do not load with (a CUDA build beside a CPU torch).

Its models are Python, and its package looks for two of the operators as it is imported. Importing this module declares
them at that moment, and does not make them: no model in these tests calls them. All else is torchvision's own.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from typing import Any

SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class Declaring(MetaPathFinder):
    """Finds nothing, and declares what torchvision asks for when torchvision is looked for."""

    library: Any = None

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            # Kept: torch forgets what a library declared when the library goes.
            Declaring.library = import_module("torch.library").Library("torchvision", "DEF")
            for name in ("nms", "qnms"):
                Declaring.library.define(name + SIGNATURE)


sys.meta_path.insert(0, Declaring())
