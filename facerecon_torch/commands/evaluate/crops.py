"""The crops of a set, kept once, and the feature tables that methods read, made from them."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm import tqdm

from facerecon_torch.cascade.feature_cache import keeps_crops, new_table, write_crops
from facerecon_torch.commands.train.samples import Samples
from facerecon_torch.features.hog.spec import HogSpec
from facerecon_torch.fitting.crop import CropSpec
from facerecon_torch.images.read import in_bytes
from facerecon_torch.runtime.lanes import side_by_side
from facerecon_torch.runtime.memory import CacheLocation

__all__ = ["CROPS", "band_limited", "with_features"]

CROPS = HogSpec(evaluation="patch")
"""A spec whose table rows are the crops themselves."""
_BATCH = 64


def with_features(
    samples: Samples, hog: HogSpec, crop: CropSpec, location: CacheLocation, *, progress: bool
) -> Samples:
    """The samples with a table for another HOG spec, made from the crops that `samples` keep.

    Specs that read crops themselves share the table of crops; all others get one of their own at `location`.
    """
    if keeps_crops(hog, crop.size, torch.float16):
        return replace(samples, hog=hog)
    table = new_table(len(samples.table), crop.size, hog, location)
    parts = [slice(start, start + _BATCH) for start in range(0, len(table), _BATCH)]

    def describe(part: slice) -> None:
        write_crops(table[part], _crops(samples.table[part]), hog)

    done = side_by_side(parts, describe, table.device)
    for _ in tqdm(done, desc=f"features, {samples.name}", total=len(parts), unit="batch", disable=not progress):
        pass
    return replace(samples, hog=hog, table=table)


def band_limited(samples: Samples, ratio: float) -> Samples:
    """The samples with crops that hold no more detail than crops of `ratio` times their density.

    Each crop is resampled to that density with an antialiasing filter, and back.
    """
    if ratio >= 1:
        return samples
    table = torch.empty_like(samples.table)
    small = max(8, round(table.shape[-1] * ratio))
    for rows in torch.split(torch.arange(len(table)), _BATCH):
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        reduced = interpolate(_crops(samples.table[part]), (small, small), mode="bicubic", antialias=True)
        grown = interpolate(reduced, tuple(table.shape[-2:]), mode="bicubic")
        table[part] = in_bytes(grown)
    return replace(samples, table=table)


def _crops(rows: Tensor) -> Tensor:
    return rows.float() / 255
