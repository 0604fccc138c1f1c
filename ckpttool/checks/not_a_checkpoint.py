"""The file is no checkpoint, and the finding says what it is instead.

What: The first bytes are those of something else: a Git LFS pointer, a web page, a server's answer in JSON or
XML, a compressed file, an archive, an ONNX, GGUF, HDF5 or numpy file. Or there is nothing: 0 bytes, or zeros
only.

Why: No loader can read it, and what they say leads astray: a pointer gives `Unsupported operand 118`, a web
page `operand 60`, zeros a complaint about tar files.

Cause: A repository cloned without Git LFS, a download that met a sign-in page or an expired link, a file that
is still packed, or a writer that was stopped before its first byte reached the disk.

Remedy: Do what the finding's hint says: pull the real file, unpack it, fetch it again from a direct link, or
go back to the checkpoint before it.
"""

from ckpttool.checks import rule

RULE = rule(__doc__, "CK100", "not-a-checkpoint", "error")
