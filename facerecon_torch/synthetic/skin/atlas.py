"""Cylindrical texture map of the reference head, for skin, brows, lips and stubble.

Reference frame: the neutral mean head in the model frame (mm). The axis is vertical, at z = `axis_depth`; the front of
a head is unrolled with little distortion: u = radius * azimuth (mm, to image right), v = y.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample

__all__ = ["Atlas"]

_STRIP = 12.0  # mm, height of the lowest strip, which is repeated below the texture


@dataclass(frozen=True, kw_only=True)
class Atlas:
    """Texture map of the front of the reference head; rows run from the top (`v_high`) down."""

    axis_depth: float = -60.0  # mm, z of the axis
    radius: float = 75.0  # mm per radian of azimuth
    u_half: float = 130.0  # mm each side of the middle
    v_low: float = -100.0  # mm
    v_high: float = 100.0  # mm
    px_per_mm: float = 2.5

    @property
    def height(self) -> int:
        """Rows of the texture."""
        return round((self.v_high - self.v_low) * self.px_per_mm)

    @property
    def width(self) -> int:
        """Columns of the texture."""
        return round(2 * self.u_half * self.px_per_mm)

    def unroll(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 2"]:
        """(u, v) in mm of points of the reference head."""
        azimuth = torch.atan2(points[:, 0], points[:, 2] - self.axis_depth)
        return torch.stack([azimuth * self.radius, points[:, 1]], dim=1)

    def to_pixels(self, unrolled: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
        """(column, row) of the texture, the first pixel's centre being (0, 0)."""
        columns = (unrolled[:, 0] + self.u_half) * self.px_per_mm - 0.5
        return torch.stack([columns, (self.v_high - unrolled[:, 1]) * self.px_per_mm - 0.5], dim=1)

    def grid(self) -> tuple[Float[Tensor, "height width"], Float[Tensor, "height width"]]:
        """u and v in mm of every texture pixel."""
        columns = (torch.arange(self.width) + 0.5) / self.px_per_mm - self.u_half
        rows = self.v_high - (torch.arange(self.height) + 0.5) / self.px_per_mm
        v, u = torch.meshgrid(rows, columns, indexing="ij")
        return u, v

    def sample(
        self, layers: Float[Tensor, "layers height width"], unrolled: Float[Tensor, "n 2"]
    ) -> Float[Tensor, "n layers"]:
        """The bilinear values of every layer.

        Outside, the texture is mirrored; below, its lowest strip is repeated back and forth, so that the neck is skin.
        """
        under = (self.v_low - unrolled[:, 1]).clamp_min(0) % (2 * _STRIP)
        v = torch.maximum(unrolled[:, 1], self.v_low + _STRIP - (under - _STRIP).abs())
        x = unrolled[:, 0] / self.u_half
        y = 1 - 2 * (v - self.v_low) / (self.v_high - self.v_low)
        where = torch.stack([x, y], dim=1)[None, None]
        return grid_sample(layers[None], where, padding_mode="reflection", align_corners=False)[0, :, 0].mT
