"""Crops of many samples, described once: what all stages, folds and methods of a training run read from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.features.hog import HogField, HogMaps, HogSpec, hog_field, hog_maps

__all__ = ["CropBank", "build_bank", "join_banks"]

CHUNK = 64  # crops described together
LARGEST_MAP = 2**20  # bytes a sample; larger maps (stride 1, 2) are made again from the crops at every stage


@dataclass(frozen=True)
class CropBank:
    """Dense maps, where they are small enough to keep, or the crops themselves; and the rows in view."""

    spec: HogSpec
    source: HogMaps | Tensor  # crops: uint8 [samples, 3, h, w]
    rows: Int[Tensor, "rows"]

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, rows: Int[Tensor, "rows"]) -> "CropBank":
        """The same bank seen through `rows` of this view; nothing is copied."""
        return replace(self, rows=self.rows[rows.to(self.rows.device)])

    def field(self, part: slice, like: Tensor) -> HogField:
        """The HOG field of a part of the view, in the dtype and on the device of `like`."""
        taken = self.source[self.rows[part]].to(like.device, like.dtype)
        return HogField(taken, self.spec) if isinstance(taken, HogMaps) else hog_field(taken / 255, self.spec)


def build_bank(
    crops: Float[Tensor, "samples 3 height width"], spec: HogSpec, *, keep: torch.dtype = torch.float16
) -> CropBank:
    """Describe `crops` in [0, 1] once. Dense maps are kept in the dtype `keep`, on the crops' device."""
    rows = torch.arange(len(crops), device=crops.device)
    if spec.evaluation != "dense" or _map_bytes(crops, spec, keep) > LARGEST_MAP:
        return CropBank(spec, (crops * 255).round().to(torch.uint8), rows)
    parts = [hog_maps(crops[i : i + CHUNK], spec).histograms.to(keep) for i in range(0, len(crops), CHUNK)]
    return CropBank(spec, HogMaps(torch.cat(parts), spec), rows)


def _map_bytes(crops: Tensor, spec: HogSpec, keep: torch.dtype) -> int:
    return crops.shape[-2] * crops.shape[-1] // spec.stride**2 * spec.bins * keep.itemsize


def join_banks(banks: Sequence[CropBank]) -> CropBank:
    """One bank of the samples of all, in order; all must hold every sample they have in view."""
    spec = banks[0].spec
    maps = [bank.source.histograms for bank in banks if isinstance(bank.source, HogMaps)]
    crops = [bank.source for bank in banks if isinstance(bank.source, Tensor)]
    source = HogMaps(torch.cat(maps), spec) if maps else torch.cat(crops)
    return CropBank(spec, source, torch.arange(sum(map(len, banks)), device=banks[0].rows.device))
