"""A fitted face in its photograph: what colour each point of the surface has there, and how well it is seen."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, interpolate, pad

from facerecon_torch.export.spread_colours import spread_colours
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.normals import corner_crosses, normals_of_crosses
from facerecon_torch.geometry.projection import project_with_depth, rotate_to_view
from facerecon_torch.images.read import Pixels, in_unit_range
from facerecon_torch.structures import Camera

__all__ = ["EYE", "MOUTH", "SKIN", "PhotographView"]

SKIN, EYE, MOUTH = range(3)
"""The parts of a face."""

_GRAZING, _FACING = 0.2, 0.5  # z of the unit normal: from no trust in a texel to full trust
_COARSER = 1.5  # px of the image per texel from which on the image is made smaller first, against aliasing
_MARGIN = 3  # px around the face that are sampled
_HIDDEN_MM = 2.0  # behind the nearest surface, from which on a point is hidden
_STEEPEST = 8.0  # px of depth per px
_AROUND = 0.15  # of the width of what is seen of the mouth, from which on the rest of it is dark
_DEEP = 0.85  # brightness there
_WITHIN = 0.3  # share of a pixel's surroundings, to the fourth power, from which on it lies within the mouth


@dataclass(frozen=True)
class PhotographView:
    """A face in its photograph.

    Attributes:
        points: of the vertices: x and y in px of the window, the depth up to which something nearer hides nothing,
            in px, and how squarely they face the camera, from 0 to 1.
        window: the photograph around the face, no finer than the texture.
        depth: of the nearest surface, in px, on the pixels of the window; infinite at the background.
        part: of the face, whose surface is nearest on the pixels; `SKIN` at the background.
    """

    points: Float[Tensor, "4 vertices"]
    window: Float[Tensor, "1 3 height width"]
    depth: Float[Tensor, "height width"]
    part: UInt8[Tensor, "height width"]

    @classmethod
    def of(
        cls, pixels: Pixels, vertices: Tensor, triangles: Tensor, part: Tensor, camera: Camera, size: int
    ) -> "PhotographView":
        """The view of one face for a texture of `size` px; `part` is that of every triangle."""
        points = project_with_depth(vertices, camera)
        turned = rotate_to_view(vertices, camera)
        crosses = corner_crosses(turned, triangles)
        normals = normals_of_crosses(turned, triangles, crosses)[:, 2:]
        facing = ((normals - _GRAZING) / (_FACING - _GRAZING)).clamp(0, 1)
        limits = points.new_tensor([pixels.shape[-1], pixels.shape[-2]])
        start = (points[:, :2].amin(0).floor() - _MARGIN).clamp_min(0).minimum(limits - 1)
        stop = (points[:, :2].amax(0).ceil() + _MARGIN).minimum(limits).maximum(start + 1)
        (left, top), (right, bottom) = start.int().tolist(), stop.int().tolist()
        window = in_unit_range(pixels[:, top:bottom, left:right].cpu())[None].float()
        coarser = max(1.0, float((stop - start).max()) / size / _COARSER)
        if coarser > 1:
            smaller = [max(1, round(side / coarser)) for side in window.shape[-2:]]
            window = interpolate(window, smaller, mode="bilinear", antialias=True)
        height, width = window.shape[-2:]
        stretch = points.new_tensor([width, height]) / (stop - start)
        places = (points[:, :2] - start + 0.5) * stretch - 0.5
        points = torch.cat([places, points[:, 2:] / coarser], -1)
        front = crosses[:, 2] > 0
        raster = get_backend().rasterise(points, triangles[front], height, width)
        free = _widened(raster.triangle < 0)
        depth = torch.where(free, torch.inf, raster.depth)  # pixels beside the background show some of it
        # Towards the nearest pixel centre the depth of a slanted surface changes too.
        slope = ((1 - normals.square()).clamp_min(0).sqrt() / normals.clamp_min(0.1)).clamp_max(_STEEPEST)
        farthest = points[:, 2:] + _HIDDEN_MM * camera.scale / coarser + slope
        seen = torch.cat([part[front], part.new_full((1,), SKIN)])[raster.triangle]  # row -1 is the background
        return cls(torch.cat([places, farthest, facing], -1).T.contiguous(), window, depth, seen)

    def look(
        self, points: Float[Tensor, "4 n"], part: UInt8[Tensor, "n"]
    ) -> tuple[Float[Tensor, "3 n"], Float[Tensor, "n"]]:
        """Colours at points of the surface, and how well they are seen: 0 where hidden or outside the photograph.

        Of eyes and mouth little is seen, so that all of it counts, however it is turned; lids and lips are so close to
        them that their pixels are left out.
        """
        height, width = self.window.shape[-2:]
        x, y, farthest, facing = points
        inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
        row, column = (y + 0.5).int().clamp_(0, height - 1), (x + 0.5).int().clamp_(0, width - 1)
        pixel = row * width + column
        nearest = self.depth.reshape(-1).index_select(0, pixel)
        own = (self.part.reshape(-1).index_select(0, pixel) == part).float()
        trust = torch.where(part == SKIN, facing, own)
        trust = torch.where(inside & (nearest <= farthest), trust, 0.0)
        grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
        colours = grid_sample(self.window, grid[None, None], padding_mode="border", align_corners=False)
        return colours[0, :, 0], trust

    def mouth(self, places: Float[Tensor, "2 n"]) -> Float[Tensor, "3 n"] | None:
        """The colours of the mouth at places of the window, of which most lie behind lips and cheeks: what is seen is
        spread around, and becomes darker away from it. None where nothing but its rim is seen."""
        mask = (self.part == MOUTH).float()[None, None]
        amount = mask * avg_pool2d(mask, 3, stride=1, padding=1) ** 4  # pixels at the rim show some lip
        if not bool((amount > _WITHIN).any()):
            return None
        rows, columns = mask[0, 0].any(1).nonzero()[:, 0], mask[0, 0].any(0).nonzero()[:, 0]
        reach = int(_AROUND * float(columns[-1] - columns[0] + 1)) + 2
        (top, bottom), (left, right) = ((int(line[0]), int(line[-1]) + 1) for line in (rows, columns))
        mask, amount, colours = (
            pad(layer[..., top:bottom, left:right], [reach] * 4) for layer in (mask, amount, self.window)
        )
        spread = spread_colours(torch.cat([colours * amount, amount], 1))
        side = 2 * reach + 1  # rows and columns apart: twice so many sums, not its square
        near = avg_pool2d(avg_pool2d(mask, (side, 1), 1, (reach, 0)), (1, side), 1, (0, reach))
        spread *= _DEEP + (1 - _DEEP) * (2 * near).clamp_max(1).maximum(mask)
        x, y = places[0] - left + reach, places[1] - top + reach
        height, width = spread.shape[-2:]
        grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
        return grid_sample(spread, grid[None, None], padding_mode="border", align_corners=False)[0, :, 0]


def _widened(mask: Bool[Tensor, "height width"]) -> Bool[Tensor, "height width"]:
    """The pixels of the mask and their eight neighbours."""
    wide = mask.clone()
    wide[:, 1:] |= mask[:, :-1]
    wide[:, :-1] |= mask[:, 1:]
    tall = wide.clone()
    tall[1:] |= wide[:-1]
    tall[:-1] |= wide[1:]
    return tall
