"""A checkpoint's tree whose mappings are opened once each: every question about a key is then one look-up."""

from __future__ import annotations

from fnmatch import fnmatchcase

from ckpttool.model import Call, Checkpoint, Mapping, Node, Scalar, Sequence, Value
from ckpttool.tree import fields

FILE_ONLY = -1
"""The index of a match that is a file of the directory whose content is not in the tree."""

Path = tuple[str, ...]


class View:
    """Answers what stands at a path. Costs one pass over each mapping that is asked about."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.nodes = checkpoint.nodes
        self._open: dict[int, dict[str, int]] = {}

    def node(self, index: int) -> Node:
        return self.nodes[index]

    def fields(self, index: int | None) -> dict[str, int]:
        """A mapping, or an object's attributes, as ``{key: node index}``."""
        if index is None or index < 0:
            return {}
        found = self._open.get(index)
        if found is None:
            found = self._open[index] = fields(self.checkpoint, index)
        return found

    def below(self, index: int) -> list[tuple[str, int]]:
        """The named children of a mapping, an object or a sequence."""
        node = self.nodes[index]
        if isinstance(node, Sequence):
            return [(str(i), item) for i, item in enumerate(node.items)]
        if isinstance(node, (Mapping, Call)):
            return list(self.fields(index).items())
        return []

    def find(self, path: str) -> list[tuple[Path, int]]:
        """Everything at a path of a profile, in the file's order."""
        for spelling in path.split("|"):
            found = self._find_one(spelling)
            if found:
                return found
        return []

    def has(self, path: str) -> bool:
        return bool(self.find(path))

    def first(self, paths: tuple[str, ...]) -> int | None:
        """The first node that any of these paths leads to."""
        return next((i for path in paths for _, i in self.find(path) if i != FILE_ONLY), None)

    def plain(self, path: str) -> Scalar:
        """The plain value at a path; None if there is none."""
        index = self.first((path,))
        node = None if index is None else self.nodes[index]
        return node.value if isinstance(node, Value) else None

    def _find_one(self, path: str) -> list[tuple[Path, int]]:
        steps = path.split(">")
        root = self.checkpoint.root
        here: list[tuple[Path, int]] = [] if root is None else [((), root)]
        for step in steps:
            here = [((*p, key), i) for p, at in here for key, i in self._matching(at, step)]
        if here or len(steps) > 1:
            return here
        files = (name.replace("\\", "/").rpartition("/")[2] for name in self.checkpoint.files)
        return [((name,), FILE_ONLY) for name in files if fnmatchcase(name, steps[0])]

    def _matching(self, index: int, step: str) -> list[tuple[str, int]]:
        if isinstance(self.nodes[index], Sequence):
            return [(k, i) for k, i in self.below(index) if step in ("*", k)]
        known = self.fields(index)
        if "*" not in step:
            return [(step, known[step])] if step in known else []
        if step.endswith("*") and "*" not in step[:-1]:
            return [(k, i) for k, i in known.items() if k.startswith(step[:-1])]
        return [(k, i) for k, i in known.items() if fnmatchcase(k, step)]
