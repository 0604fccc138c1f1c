"""The search for partners, step by step, the surest first; each step has what the ones before it left."""

from __future__ import annotations

from ckpttool.migration.search_content import ByContent
from ckpttool.migration.search_names import ByName


class Search(ByContent, ByName):
    """Finds links between two lists of keys. ``rest`` is what has no partner yet.

    A link is certain in three cases only: exact content that is theirs alone and not one row over and over; equal
    names and forms (wrappers, or one prefix for all, aside) that no content contradicts, in modules that both sides
    count alike; equal names and forms in modules whose other tensors content has proved. Where contents tell of some
    tensors, what has another content than its namesake needs the latter. All else is likely at most.
    """

    def run(self) -> None:
        """All steps."""
        if self.evidence is not None:
            self._read(self.evidence)
            self._by_content(self.evidence)
            self._by_nearness(self.evidence)
        self._by_name()
        self._by_prefix()
        self._by_neighbours()
        self._by_example()
        self._by_module()
        self._by_guess()
