"""Report of the default face's measures beside published ones.

    python -m facerecon_torch.model.default_face.report [--people 1500]

Printed are each measure's mean for women and men and its standard deviation within a sex: published (over all tables
that have it), of MakeHuman's people as they are, and of the calibrated ones. A measure is a distance of two vertices;
published definitions, with a caliper on skin, differ from it by 1 to 4 mm.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.model.default_face.asset import ADULT_SIZE, SourceAsset, read_asset
from facerecon_torch.model.default_face.measures import (
    MEASURES,
    anatomical_vertices,
    measure,
    published_deviation,
    published_mean,
)
from facerecon_torch.model.default_face.shapes import FaceSource
from facerecon_torch.model.default_face.sliders import FIELD, MEAN

__all__ = ["main", "measure_people", "report"]

SEED, BLOCK = 20261128, 100


def _sculpted(asset: SourceAsset) -> SourceAsset:
    """MakeHuman's people in adult size: no fields, no moved means, the usual spreads."""
    keep = [i for i, name in enumerate(asset.target_names) if not name.startswith((FIELD, MEAN))]
    rows = [np.arange(asset.target_offsets[i], asset.target_offsets[i + 1]) for i in keep]
    entries = np.concatenate(rows)
    return replace(
        asset,
        target_names=tuple(asset.target_names[i] for i in keep),
        target_offsets=np.concatenate([[0], np.cumsum([len(r) for r in rows])]),
        target_vertices=asset.target_vertices[entries],
        target_steps=asset.target_steps[entries],
        spreads={},
    )


def measure_people(
    source: FaceSource, n: int, generator: torch.Generator
) -> tuple[Float[Tensor, "2 measures"], Float[Tensor, "measures"]]:
    """The means for women and men, and the standard deviations within a sex, of n drawn people; mm.

    Gender is a share, so the means are those of a regression on it, at its two ends.
    """
    people, points = source.sample(n, generator), anatomical_vertices(source)
    rows = [measure(source.identity_vertices(part), points) for part in torch.split(people.sliders, BLOCK)]
    lengths, gender = torch.cat(rows), people.gender.to(source.dtype)
    design = torch.stack([1 - gender, gender], 1)
    means = torch.linalg.lstsq(design, lengths).solution
    return means, (lengths - design @ means).std(0)


def report(people: int) -> str:
    """The table, one line per measure."""
    asset = read_asset()
    make = partial(FaceSource, dtype=torch.float64)
    before = measure_people(make(_sculpted(asset)), people, torch.Generator().manual_seed(SEED))
    before = before[0] / ADULT_SIZE, before[1] / ADULT_SIZE  # in their own size
    after = measure_people(make(asset), people, torch.Generator().manual_seed(SEED))
    lines = [f"{'':12}{'women: published, before, after':>34}{'men: published, before, after':>34}{'deviation':>28}"]
    for k, name in enumerate(MEASURES):
        cells: list[float | None] = []
        for row, sex in enumerate(("female", "male")):
            cells += [published_mean(name, sex), float(before[0][row, k]), float(after[0][row, k])]
        cells += [published_deviation(name), float(before[1][k]), float(after[1][k])]
        lines.append(f"{name:12}" + "".join(f"{'-' if c is None else f'{c:.1f}':>11}" for c in cells))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--people", type=int, default=1500, help="number of drawn people")
    sys.stdout.write(report(parser.parse_args(arguments).people) + "\n")


if __name__ == "__main__":
    main()
