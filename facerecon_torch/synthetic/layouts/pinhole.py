"""Images and depth of a head under a pinhole camera, made with the renderer's scaled orthographic camera.

Camera frame: mm, +x image right, +y up, the camera in the origin looking along -z: x = cx + f X / -Z,
y = cy - f Y / -Z (px) for X = R v + T. The mesh is distorted so that the orthographic camera shows it as the pinhole
camera would: (x, y) of each vertex is scaled by the ratio of the model origin's depth to its own, z stays.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from facerecon_torch.data.recordings import RangeGrid
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.structures import Camera
from facerecon_torch.synthetic.layouts.subject import LayoutSubject, render_image
from facerecon_torch.synthetic.people.head import true_landmarks
from facerecon_torch.synthetic.render.range_sensor import SensorSpec, simulate_sensor
from facerecon_torch.synthetic.render.subject import full_mesh

__all__ = ["Pinhole", "pinhole_landmarks", "render_pinhole_image", "scan_pinhole"]

_HAIR_MEASURED = 0.35  # share of the cells on hair
_SHORTEST_HAIR = 2.0  # mm; shorter hair is measured like skin


@dataclass(frozen=True, kw_only=True)
class Pinhole:
    """Pinhole camera of `focal` px with its principal point amid `height` x `width` px, and the head's pose.

    `rotation` and `translation` (mm) map the model frame to the camera frame.
    """

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
        """The principal point, px."""
        return torch.tensor([(self.width - 1) / 2, (self.height - 1) / 2])

    @property
    def camera(self) -> Camera:
        """The scaled orthographic camera for meshes from `to_orthographic`."""
        scale = torch.tensor(float(self.focal)) / -self.translation[2]
        shift = self.centre + scale * self.translation[:2] * torch.tensor([1.0, -1.0])
        return Camera(rotation=self.rotation, scale=scale, translation=shift, degenerate=torch.tensor(False))

    def to_orthographic(self, vertices: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Distorted vertices (model frame) that `camera` projects to where the pinhole camera projects `vertices`."""
        view = vertices @ self.rotation.mT
        shift, distance = self.translation[:2], -self.translation[2]
        magnification = distance / (distance - view[:, 2:])
        flat = (view[:, :2] + shift) * magnification - shift
        return torch.cat([flat, view[:, 2:]], dim=1) @ self.rotation

    def project(self, points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 2"]:
        """Positions in px of points in the model frame."""
        view = points @ self.rotation.mT + self.translation
        return self.centre.to(points) + self.focal * (view[..., :2] * torch.tensor([1.0, -1.0]) / -view[..., 2:])

    def rays(self) -> Float[Tensor, "height width 3"]:
        """The ray of each pixel, scaled to depth 1."""
        x = (torch.arange(self.width) - self.centre[0]) / self.focal
        y = (self.centre[1] - torch.arange(self.height)) / self.focal
        flat = (x.expand(self.height, -1), y[:, None].expand(-1, self.width))
        return torch.stack([*flat, -torch.ones_like(flat[0])], dim=-1)


def pinhole_landmarks(pinhole: Pinhole, vertices: Float[Tensor, "v 3"]) -> Float[Tensor, "66 2"]:
    """The true 66 landmarks of a mesh (model frame) in px, with the contour at the silhouette."""
    return true_landmarks(pinhole.to_orthographic(vertices), pinhole.camera)[0]


def render_pinhole_image(
    subject: LayoutSubject, vertices: Float[Tensor, "s 3"], pinhole: Pinhole, generator: torch.Generator
) -> Float[Tensor, "3 height width"]:
    """An image in [0, 1], rounded to 8 bits, of the subject with the bust `vertices` (mm, model frame)."""
    orthographic = replace(subject, neutral=pinhole.to_orthographic(subject.neutral))
    shape = (pinhole.height, pinhole.width)
    pixels = render_image(orthographic, pinhole.to_orthographic(vertices), pinhole.camera, shape, generator=generator)
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def scan_pinhole(
    subject: LayoutSubject,
    vertices: Float[Tensor, "s 3"],
    pinhole: Pinhole,
    sensor: SensorSpec,
    generator: torch.Generator,
) -> RangeGrid:
    """The range grid of the bust in the camera frame, one cell per pixel; noise lies along the rays.

    Raises ValueError where nothing is measured.
    """
    neutral, vertices = pinhole.to_orthographic(subject.neutral), pinhole.to_orthographic(vertices)
    points, triangles = full_mesh(subject.head, subject.painted, neutral, vertices)
    view = points @ pinhole.rotation.mT
    distance = -pinhole.translation[2]
    camera = pinhole.camera
    pixels = camera.scale * view[:, :2] * torch.tensor([1.0, -1.0]) + camera.translation
    depth = (distance - view[:, 2]).clamp_min(1.0)
    # Inside a triangle 1 / depth is linear in image coordinates; depth is not.
    corners = torch.cat([pixels, (distance / depth)[:, None]], dim=1)
    raster = get_backend().rasterise(corners, triangles, pinhole.height, pinhole.width)
    rays = pinhole.rays()
    surface = rays * (distance / raster.depth.clamp_min(1e-3))[..., None]
    slopes = (pixels - pinhole.centre) * torch.tensor([1.0, -1.0]) / pinhole.focal
    undistorted = torch.cat([slopes, -torch.ones(len(slopes), 1)], dim=1) * depth[:, None]
    which = raster.triangle.clamp_min(0)
    normals = vertex_normals(undistorted, triangles)[triangles[which]]
    mixed = normalize((raster.barycentric[..., None] * normals).sum(-2), dim=-1)
    cosine = -(mixed * normalize(rays, dim=-1)).sum(-1)
    share = _reflectance(subject, triangles)[which]
    grid = simulate_sensor(surface, cosine, raster.triangle >= 0, sensor, generator=generator, reflectance=share)
    return RangeGrid(rays * -grid.points[..., 2:], grid.valid)


def _reflectance(subject: LayoutSubject, triangles: Int[Tensor, "t 3"]) -> Float[Tensor, "t"]:
    """The share of each triangle's cells that are measured: 1 on skin, less on hair."""
    head, n = subject.head, subject.head.n_source
    thickness = torch.zeros(len(head.reference))
    thickness[:n] = subject.painted.hair.thickness(head.reference[:n], head.ears[:n])
    thickness[head.curtain] = 2 * _SHORTEST_HAIR
    hairy = (thickness[triangles] > _SHORTEST_HAIR).all(1) & (subject.painted.look.hair_style != "bald")
    return torch.where(hairy, _HAIR_MEASURED, 1.0)
