"""`python -m facerecon_torch` is the command `facerecon`."""

import sys

from facerecon_torch.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
