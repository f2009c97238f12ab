"""Prepare a data set: configs/prepare.yaml -> recordings -> a registered set that train.py reads."""

import sys

from facerecon_torch.commands.cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
