"""``python -m ckpttool`` is ``ckpttool``."""

from ckpttool.cli import main

if __name__ == "__main__":
    main(prog_name="ckpttool")
