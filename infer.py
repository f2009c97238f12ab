"""Reconstruct photographs: images + cascade -> parameters, meshes, overlays."""

import sys

from facerecon_torch.commands.cli import main

if __name__ == "__main__":
    sys.exit(main(["infer", *sys.argv[1:]]))
