"""The checkpoint is not as ready as `--require` asks.

What: The level that was asked for (`weights`, `resumable` or `exact`) and the level that holds, with
the parts that lack.

Why: Whoever asked relies on it: a job that is started with `--require resumable` should fail here
rather than train from
scratch without a word.

Cause: The part was never saved, or this is not the file that was meant.

Remedy: Take another checkpoint of the same run, or ask for less. The finding names the parts to save
next time.
"""

from __future__ import annotations

from ckpttool.checks import rule

RULE = rule(__doc__, "CK703", "requirement-not-met", "error")
