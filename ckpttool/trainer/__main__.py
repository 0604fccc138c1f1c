"""``python -m ckpttool.trainer``: what ``torchrun`` starts in each process. The same options as ``ckpttool train``."""

from __future__ import annotations

import sys

from ckpttool.trainer.options import main

if __name__ == "__main__":
    sys.exit(main())
