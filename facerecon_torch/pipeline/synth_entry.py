"""`facerecon synth`: renders a synthetic set into a folder."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from facerecon_torch.data.synthetic.dataset import render_set
from facerecon_torch.data.synthetic.spec import FAMILIES, SyntheticSpec

__all__ = ["run_synth"]


def run_synth(arguments: Sequence[str]) -> int:
    """Render a set; 0 done, 2 where the call was wrong."""
    parser = argparse.ArgumentParser(prog="facerecon synth", description="Render a synthetic set of photographs with "
                                     "true meshes. An interrupted run goes on where it stopped.")  # fmt: skip
    parser.add_argument("out", type=Path, help="folder: images/*.jpg, truth.safetensors, set.json")
    parser.add_argument("--subjects", type=int, default=10, help="people (default: %(default)s)")
    parser.add_argument("--images", type=int, default=12, help="photographs of each (default: %(default)s)")
    parser.add_argument("--family", choices=FAMILIES, default="train", help="which people (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=448, help="px, square (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=None, help="processes (default: one per core)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        spec = SyntheticSpec(
            subjects=given.subjects,
            images_per_subject=given.images,
            seed=given.seed,
            size=given.size,
            family=given.family,
        )
        rendered = render_set(spec, given.out, workers=given.workers, progress=not given.quiet)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"facerecon synth: {error}\n")
        return 2
    sys.stdout.write(f"{len(rendered)} images of {spec.subjects} people in {given.out}\n")
    return 0
