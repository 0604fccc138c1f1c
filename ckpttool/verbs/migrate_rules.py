"""The rules of a migration, from wherever they are asked for: a file, a preset, or a target that tells the way."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TypeAlias

from ckpttool.errors import CkpttoolError, UsageError, printable
from ckpttool.limits import Limits
from ckpttool.migration import RuleFile, load
from ckpttool.migration.inference import Evidence, Inference
from ckpttool.migration.reach import Wishes, weight_scopes
from ckpttool.migration.rule_errors import listed
from ckpttool.migration.scopes import facts_of, names_of
from ckpttool.migration.target import Target, target_of, weights_of
from ckpttool.migration.towards import towards
from ckpttool.source import LocalFile
from ckpttool.units import size
from ckpttool.verbs.diff_sides import target as side_of
from ckpttool.verbs.infer import evidence_of
from ckpttool.verbs.inventory import Selection
from ckpttool.verbs.models import model_target
from ckpttool.verbs.presets import preset as preset_of
from ckpttool.verbs.targets import is_keys, keys_target
from ckpttool.verbs.writable import Writable, writable

Setting: TypeAlias = "int | float | str"

LARGEST = 16 << 20
"""Bytes that a file of rules may have."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a user said about the way: rules, a preset, a target; ``under`` names the dict to migrate."""

    rules: str | os.PathLike[str] | None
    preset: str
    to: str | os.PathLike[str] | None
    to_model: str
    under: str | None
    cast: bool
    limits: Limits


@dataclass(frozen=True, slots=True)
class Chosen:
    """The rules, the target that checks them, and notes for people."""

    rules: RuleFile
    target: Target | None = None
    notes: tuple[str, ...] = ()


def rules_of(asked: Asked, path: str | os.PathLike[str], found: Writable) -> Chosen:
    """The rules that were asked for. Raises ``UsageError``, ``RuleError``, ``Unreadable``; ``CkpttoolError`` for a
    target that no certain way leads to.
    """
    if asked.rules is not None and asked.preset:
        raise UsageError("--rules and --preset are two ways to name rules: give one of the two")
    target = target_asked(asked)
    if asked.rules is not None:
        return Chosen(load(text_of(asked.rules), os.fspath(asked.rules)), target)
    if asked.preset:
        one = preset_of(asked.preset)
        return Chosen(load(one.text, one.where), target)
    if target is None:
        raise UsageError("migrate needs rules or a target: give --rules, --preset, --chain, --to or --to-model")
    return _found_out(asked, path, found, target)


def text_of(path: str | os.PathLike[str]) -> str:
    """The text of a file of rules; only a regular file is waited for.

    Raises ``Unreadable``, and ``UsageError`` for what is too large or no text.
    """
    name = os.fspath(path)
    file = LocalFile(name)
    try:
        if file.size > LARGEST:
            found, most = (size(file.size), size(LARGEST))
            raise UsageError(f"{printable(name)} – has {found}, and files of rules up to {most} are read")
        return file.read(0, file.size).decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{printable(name)} – is no text, so no file of rules") from error
    finally:
        file.close()


def target_asked(asked: Asked) -> Target | None:
    """The target that was asked for; None where there is none. Raises what reading it raises."""
    if asked.to is not None and asked.to_model:
        raise UsageError("--to and --to-model are two ways to name a target: give one of the two")
    if asked.to_model:
        return model_target(asked.to_model)
    if asked.to is None:
        return None
    if is_keys(asked.to):
        return keys_target(asked.to)
    found = writable(asked.to, asked.limits)
    return target_of(found.checkpoint, found.layout, printable(os.fspath(asked.to)))


def _found_out(asked: Asked, path: str | os.PathLike[str], found: Writable, target: Target) -> Chosen:
    """The rules that lead to the target, where they are certain."""
    scopes = weight_scopes(found.checkpoint, found.layout, Wishes(under=asked.under))
    scope = max(scopes, key=lambda one: len(one.named))
    names = names_of(found.checkpoint, scope, facts_of(found.checkpoint))
    evidence = _evidence(asked, path, found)
    inference = towards(
        names, target, evidence, ordered=found.layout.ordered, cast=asked.cast, about=f"towards {target.name}"
    )
    if not inference.complete:
        raise CkpttoolError(_open(path, asked, inference))
    rules = load(inference.rules, f"rules towards {target.name}")
    return Chosen(rules, target, inference.notes)


def _evidence(asked: Asked, path: str | os.PathLike[str], found: Writable) -> Evidence | None:
    """Contents of both sides, where the target is a checkpoint and the weights are what is migrated."""
    if asked.to is None or asked.under is not None or is_keys(asked.to):
        return None
    one, other = (side_of(p, "", Selection(), asked.limits) for p in (path, asked.to))
    return evidence_of(one, weights_of(found.checkpoint, found.layout), other)


def _open(path: str | os.PathLike[str], asked: Asked, inference: Inference) -> str:
    """Why a target alone is not enough, and how to go on."""
    said = []
    if inference.missing:
        said.append(f"nothing leads to {listed(inference.missing)}")
    asked_first = inference.questions[:3]
    said += [f"{listed(one.new)} may come from {listed(one.candidates)} ({one.why})" for one in asked_first]
    if len(inference.questions) > 3:
        said.append(f"{len(inference.questions) - 3} more questions")
    other = f"--to-model {asked.to_model}" if asked.to_model else printable(os.fspath(asked.to or ""))
    where = printable(os.fspath(path))
    return (
        f"{where} – the way to {other} is not certain: {'; '.join(said)}; run ckpttool infer {where} {other} "
        "-o rules.yaml, complete the rules and give them with --rules"
    )
