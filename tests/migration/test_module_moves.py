"""Records of modules (``_metadata``) follow the keys that move: module by module."""

from __future__ import annotations

import pytest

from ckpttool.migration.module_moves import moved_modules


def moved(old: str, *pairs: tuple[str, str]) -> list[str]:
    """The modules of the result, each with the one whose record it takes, as ``new<old``; the root is a slash."""
    found = moved_modules(["", *old.split()], pairs, (), [source for _, source in pairs])
    spelled = [(name or "/", "-" if source is None else source or "/") for name, source in found]
    return [name if source == name else f"{name}<{source}" for name, source in spelled]


LLAMA = "m m.emb m.layers m.layers.0 m.layers.0.mlp m.layers.0.mlp.up m.layers.0.mlp.act m.rotary head"


@pytest.mark.parametrize(
    ("old", "pairs", "made"),
    [
        # containers over the same keys are the same, however deep they stand; what stood in one that is gone stays
        (
            LLAMA,
            [("tok.w", "m.emb.w"), ("layers.0.ff.w1.w", "m.layers.0.mlp.up.w"), ("out.w", "head.w")],
            "/ tok<m.emb layers<m.layers layers.0<m.layers.0 layers.0.ff<m.layers.0.mlp "  # noqa: ISC004
            "layers.0.ff.w1<m.layers.0.mlp.up layers.0.ff.act<m.layers.0.mlp.act m.rotary out<head",
        ),
        # where a wrapper goes, what it wraps stands in its place
        ("module module.fc module.act", [("fc.w", "module.fc.w")], "/<module fc<module.fc act<module.act"),
        # what is split gives its record to all parts, and a new container has one of its own
        ("a a.qkv", [("a.q.w", "a.qkv.w"), ("a.k.w", "a.qkv.w")], "/ a a.q<a.qkv a.k<a.qkv"),
        # what is joined takes the first one's
        ("a a.q a.k", [("a.qkv.w", "a.q.w"), ("a.qkv.w", "a.k.w")], "/ a a.qkv<a.q"),
        # a new module stands behind all that stands in the one before it
        ("n n.1 n.x c", [("n.one.w", "n.1.w"), ("d.c.w", "c.w")], "/ n n.one<n.1 n.x d<- d.c<c"),
    ],
)  # fmt: skip
def test_records_follow(old: str, pairs: list[tuple[str, str]], made: str) -> None:
    assert moved(old, *pairs) == made.split()
