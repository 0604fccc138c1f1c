"""The pickle that describes the checkpoint cannot be followed to its end.

What: A byte is no operation, an operand is longer than what is left, a value is taken from an empty stack
or memo slot, a frame is crossed, or the end comes without STOP. The finding gives the byte offset. Names
asked for before that point were still judged.

Why: `torch.load` fails with whatever Python error comes first (`EOFError`, `IndexError`, `KeyError`,
`UnpicklingError`) and often advises a less safe setting, which cannot help. A scanner that gives up here
would miss what stands before, and what stands behind is not known: such a file counts as unsafe, not as plain.

Cause: Damage to the first record or a cut file; a text-mode transfer; or a pickle that was broken on
purpose behind code that has run by then.

Remedy: Fetch the file again or take the previous checkpoint. If `ckpttool verify` also reports
`unsafe-global`, do not load it in any way.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK122", "pickle-malformed", "error", axis="hostile")
