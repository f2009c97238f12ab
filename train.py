"""Train a cascade: configs/train.yaml -> data -> cascade -> config.yaml, report.json, cascade.safetensors."""

import sys

from facerecon_torch.commands.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
