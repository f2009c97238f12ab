"""Run the paper's experiments: configs/evaluate.yaml -> methods on every fold -> metrics.json, figures, report.html."""

import sys

from facerecon_torch.commands.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
