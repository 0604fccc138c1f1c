"""One file can be read as two different formats.

What: More than one format takes this file for its own, for example a safetensors file with a zip archive
behind it. The finding lists the readings.

Why: Two programs that open the file see two different contents. A scanner can be shown the harmless one while
a loader takes the other.

Cause: Files concatenated by mistake, or a file made on purpose to pass a scanner. No writer of checkpoints
produces it.

Remedy: Do not use it. Take the checkpoint from where it was first written, or save it anew from a source that
you trust.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK126", "polyglot", "warning")
