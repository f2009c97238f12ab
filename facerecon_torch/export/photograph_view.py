"""A fitted face in its photograph: what colour each point of the surface has there, and how well it is seen."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate, max_pool2d

from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.normals import corner_crosses, normals_of_crosses
from facerecon_torch.geometry.projection import project_with_depth, rotate_to_view
from facerecon_torch.images.read import Pixels, in_unit_range
from facerecon_torch.structures import Camera

__all__ = ["PhotographView"]

_GRAZING, _FACING = 0.2, 0.5  # z of the unit normal: from no trust in a texel to full trust
_COARSER = 1.5  # px of the image per texel from which on the image is made smaller first, against aliasing
_MARGIN = 3  # px around the face that are sampled
_HIDDEN_MM = 2.0  # behind the nearest surface, from which on a point is hidden
_STEEPEST = 8.0  # px of depth per px


@dataclass(frozen=True)
class PhotographView:
    """A face in its photograph.

    Attributes:
        points: of the vertices: x and y in px of the window, the depth up to which something nearer hides nothing,
            in px, and how squarely they face the camera, from 0 to 1.
        window: the photograph around the face, no finer than the texture.
        depth: of the nearest surface, in px, on the pixels of the window; infinite at the background.
        inner: the pixels whose nearest surface is a part within the face.
    """

    points: Float[Tensor, "4 vertices"]
    window: Float[Tensor, "1 3 height width"]
    depth: Float[Tensor, "height width"]
    inner: Bool[Tensor, "height width"]

    @classmethod
    def of(
        cls, pixels: Pixels, vertices: Tensor, triangles: Tensor, inner: Tensor, camera: Camera, size: int
    ) -> "PhotographView":
        """The view of one face for a texture of `size` px; `inner` are the triangles of eyes and mouth."""
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
        free = max_pool2d((raster.triangle < 0).float()[None], 3, stride=1, padding=1)[0] > 0
        depth = torch.where(free, torch.inf, raster.depth)  # pixels beside the background show some of it
        # Towards the nearest pixel centre the depth of a slanted surface changes too.
        slope = ((1 - normals.square()).clamp_min(0).sqrt() / normals.clamp_min(0.1)).clamp_max(_STEEPEST)
        farthest = points[:, 2:] + _HIDDEN_MM * camera.scale / coarser + slope
        shows_inner = (raster.triangle >= 0) & inner[front][raster.triangle.clamp_min(0)]
        return cls(torch.cat([places, farthest, facing], -1).T.contiguous(), window, depth, shows_inner)

    def look(
        self, points: Float[Tensor, "4 n"], inner: Bool[Tensor, "n"]
    ) -> tuple[Float[Tensor, "3 n"], Float[Tensor, "n"]]:
        """Colours at points of the surface, and how well they are seen: 0 where hidden or outside the photograph.

        Of eyes and mouth, the `inner` points, little is seen, so that all of it counts, however it is turned; lids and
        lips are so close to them that their pixels are left out.
        """
        height, width = self.window.shape[-2:]
        x, y, farthest, facing = points
        inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
        row, column = (y + 0.5).int().clamp_(0, height - 1), (x + 0.5).int().clamp_(0, width - 1)
        pixel = row * width + column
        nearest = self.depth.reshape(-1).index_select(0, pixel)
        trust = torch.where(inner, self.inner.reshape(-1).index_select(0, pixel).float(), facing)
        trust = torch.where(inside & (nearest <= farthest), trust, 0.0)
        grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
        colours = grid_sample(self.window, grid[None, None], padding_mode="border", align_corners=False)
        return colours[0, :, 0], trust
