"""HOG of many crops at moving landmarks: what all stages, folds and methods of a training run read from."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.features.dense_hog import HogMaps, gather_hog, hog_maps
from facerecon_torch.features.hog_spec import HogSpec
from facerecon_torch.features.patch_hog import patch_hog

__all__ = ["HogBank", "build_bank", "join_banks"]

_CHUNK = 64  # crops described together


@dataclass(frozen=True)
class HogBank:
    """Either dense maps (evaluation=dense; kept in half precision) or the crops themselves, and the rows in view."""

    spec: HogSpec
    maps: HogMaps | None
    crops: Tensor | None  # uint8 [samples, 3, h, w]
    rows: Int[Tensor, "rows"]

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, rows: Int[Tensor, "rows"]) -> "HogBank":
        """The same bank seen through `rows` of this view; nothing is copied."""
        return replace(self, rows=self.rows[rows.to(self.rows.device)])

    def describe(self, points: Float[Tensor, "rows n 2"], out: Float[Tensor, "rows features"]) -> None:
        """Write the descriptors around `points` (crop px) of every row in view into `out`."""
        for start in range(0, len(self.rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            index, around = self.rows[part], points[part].to(out.dtype)
            if self.maps is not None:
                described = gather_hog(self.maps[index].to(out.device, out.dtype), around, self.spec)
            else:
                described = patch_hog(
                    self._pictures(index, out), around, self.spec, halo=self.spec.evaluation == "patch_halo"
                )
            out[part] = described.flatten(1)

    def _pictures(self, index: Tensor, like: Tensor) -> Tensor:
        if self.crops is None:
            raise ValueError("this bank holds neither maps nor crops")
        return self.crops[index].to(like.device, like.dtype) / 255


def build_bank(
    crops: Float[Tensor, "samples 3 height width"], spec: HogSpec, *, keep: torch.dtype = torch.float16
) -> HogBank:
    """Describe `crops` in [0, 1] once. Dense maps are kept in the dtype `keep` on the crops' device."""
    rows = torch.arange(len(crops), device=crops.device)
    if spec.evaluation == "dense":
        parts = [hog_maps(crops[i : i + _CHUNK], spec).histograms.to(keep) for i in range(0, len(crops), _CHUNK)]
        return HogBank(spec, HogMaps(torch.cat(parts), spec), None, rows)
    return HogBank(spec, None, (crops * 255).round().to(torch.uint8), rows)


def join_banks(banks: list[HogBank]) -> HogBank:
    """One bank of the samples of all, in order; all must hold every sample they have in view."""
    first = banks[0]
    maps = None if first.maps is None else HogMaps(torch.cat([b.maps.histograms for b in banks if b.maps]), first.spec)
    crops = None if first.crops is None else torch.cat([b.crops for b in banks if b.crops is not None])
    samples = sum(len(b.rows) for b in banks)
    return HogBank(first.spec, maps, crops, torch.arange(samples, device=first.rows.device))
