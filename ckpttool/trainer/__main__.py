"""``python -m ckpttool.trainer``: what ``torchrun`` starts in each process. It is ``ckpttool train``."""

import sys

from ckpttool.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]], prog_name="ckpttool")
