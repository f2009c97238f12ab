"""Photographs and depth of a head before a pinhole camera, from the renderer, whose own camera has no perspective.

Camera frame: mm, +x image right, +y up, the camera in the origin looking along -z: x = cx + f X / -Z,
y = cy - f Y / -Z (px) for X = R v + T. The mesh is bent so that the scaled orthographic camera of the renderer shows it
as the pinhole would: (x, y) of each vertex are scaled by how much nearer than the model's origin it is, z stays.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from facerecon_torch.data.range_grid import RangeGrid
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.structures import Camera
from facerecon_torch.synthetic.landmark_truth import true_landmarks
from facerecon_torch.synthetic.layouts.subject import Sitter, take_picture
from facerecon_torch.synthetic.render.range_sensor import SensorSpec, sense
from facerecon_torch.synthetic.render.render import full_mesh

__all__ = ["Pinhole", "find_landmarks", "measure", "photograph"]

_DARK_SHARE = 0.35  # of the cells on hair that are measured
_SHORTEST_HAIR = 2.0  # mm, below which a scalp is measured like skin


@dataclass(frozen=True, kw_only=True)
class Pinhole:
    """A camera of `focal` px whose axis meets the middle of its picture of `height` x `width` px, and where the head
    stands before it (model frame -> camera frame)."""

    focal: float | int
    height: int
    width: int
    rotation: Float[Tensor, "3 3"]
    translation: Float[Tensor, "3"]

    def __post_init__(self) -> None:
        if not (self.focal > 0 and min(self.height, self.width) > 0 and float(self.translation[2]) < 0):
            raise ValueError(f"focal length and size must be positive and the head before the camera; got {self}")

    @property
    def centre(self) -> Float[Tensor, "2"]:
        """Principal point, px."""
        return torch.tensor([(self.width - 1) / 2, (self.height - 1) / 2])

    @property
    def camera(self) -> Camera:
        """The scaled orthographic camera that shows bent meshes."""
        scale = torch.tensor(float(self.focal)) / -self.translation[2]
        shift = self.centre + scale * self.translation[:2] * torch.tensor([1.0, -1.0])
        return Camera(rotation=self.rotation, scale=scale, translation=shift, degenerate=torch.tensor(False))

    def bend(self, vertices: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Vertices in the model frame as the scaled orthographic camera has to see them."""
        view = vertices @ self.rotation.mT
        shift, distance = self.translation[:2], -self.translation[2]
        nearer = distance / (distance - view[:, 2:])
        flat = (view[:, :2] + shift) * nearer - shift
        return torch.cat([flat, view[:, 2:]], dim=1) @ self.rotation

    def project(self, points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 2"]:
        """Places in px of points in the model frame."""
        seen = points @ self.rotation.mT + self.translation
        flat = seen[..., :2] * torch.tensor([1.0, -1.0]) / -seen[..., 2:]
        return self.centre.to(points) + self.focal * flat

    def rays(self) -> Float[Tensor, "height width 3"]:
        """Direction behind each pixel, of depth 1."""
        x = (torch.arange(self.width) - self.centre[0]) / self.focal
        y = (self.centre[1] - torch.arange(self.height)) / self.focal
        flat = (x.expand(self.height, -1), y[:, None].expand(-1, self.width))
        return torch.stack([*flat, -torch.ones_like(flat[0])], dim=-1)


def find_landmarks(pinhole: Pinhole, vertices: Float[Tensor, "v 3"]) -> Float[Tensor, "66 2"]:
    """The true 66 landmarks of a mesh (model frame) in px, the contour at the silhouette."""
    return true_landmarks(pinhole.bend(vertices), pinhole.camera)[0]


def photograph(
    sitter: Sitter, vertices: Float[Tensor, "s 3"], pinhole: Pinhole, generator: torch.Generator
) -> Float[Tensor, "3 height width"]:
    """A picture, 8 bits a channel as [0, 1], of the sitter with the expressed bust `vertices` (mm, model frame)."""
    bent = replace(sitter, neutral=pinhole.bend(sitter.neutral))
    shape = (pinhole.height, pinhole.width)
    pixels = take_picture(bent, pinhole.bend(vertices), pinhole.camera, shape, generator=generator)
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def measure(
    sitter: Sitter,
    vertices: Float[Tensor, "s 3"],
    pinhole: Pinhole,
    sensor: SensorSpec,
    generator: torch.Generator,
) -> RangeGrid:
    """The range grid of the same bust, one cell behind each pixel, in the camera frame; noise lies along the rays.

    Raises ValueError where nothing is measured.
    """
    points, triangles = full_mesh(sitter.head, sitter.person, pinhole.bend(sitter.neutral), pinhole.bend(vertices))
    view = points @ pinhole.rotation.mT
    distance = -pinhole.translation[2]
    camera = pinhole.camera
    pixels = camera.scale * view[:, :2] * torch.tensor([1.0, -1.0]) + camera.translation
    depth = (distance - view[:, 2]).clamp_min(1.0)
    # Between the corners of a triangle 1 / depth is linear in the picture, depth is not.
    corners = torch.cat([pixels, (distance / depth)[:, None]], dim=1)
    raster = get_backend().rasterise(corners, triangles, pinhole.height, pinhole.width)
    rays = pinhole.rays()
    seen = rays * (distance / raster.depth.clamp_min(1e-3))[..., None]
    behind = (pixels - pinhole.centre) * torch.tensor([1.0, -1.0]) / pinhole.focal
    straight = torch.cat([behind, -torch.ones(len(behind), 1)], dim=1) * depth[:, None]
    which = raster.triangle.clamp_min(0)
    normals = vertex_normals(straight, triangles)[triangles[which]]
    mixed = normalize((raster.barycentric[..., None] * normals).sum(-2), dim=-1)
    cosine = -(mixed * normalize(rays, dim=-1)).sum(-1)
    share = _reflectance(sitter, triangles)[which]
    grid = sense(seen, cosine, raster.triangle >= 0, sensor, generator=generator, reflectance=share)
    return RangeGrid(rays * -grid.points[..., 2:], grid.valid)


def _reflectance(sitter: Sitter, triangles: Int[Tensor, "t 3"]) -> Float[Tensor, "t"]:
    """Share of each triangle's cells that are measured: skin throughout, hair in part."""
    head, n = sitter.head, sitter.head.n_source
    lift = torch.zeros(len(head.reference))
    lift[:n] = sitter.person.hair.lift(head.reference[:n], head.ears[:n])
    lift[head.curtain] = 2 * _SHORTEST_HAIR
    hairy = (lift[triangles] > _SHORTEST_HAIR).all(1) & (sitter.person.look.hair_style != "bald")
    return torch.where(hairy, _DARK_SHARE, 1.0)
