"""One person of a layout (shape, appearance, light, camera settings) and its rendered images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import embedding_bag, interpolate

from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.structures import Camera
from facerecon_torch.synthetic.layouts.spec import LayoutSpec
from facerecon_torch.synthetic.people.canvas import blur
from facerecon_torch.synthetic.people.head import Head, load_head
from facerecon_torch.synthetic.people.occluders import Occluder
from facerecon_torch.synthetic.people.sampling import draw_gaze, draw_subject
from facerecon_torch.synthetic.render.lighting import Light, draw_light
from facerecon_torch.synthetic.render.photograph import CameraSettings, draw_background, draw_camera_settings, expose
from facerecon_torch.synthetic.render.subject import PaintedHead, full_mesh, paint_head, render_head

__all__ = ["LayoutSubject", "draw_layout_subject", "render_image"]

_LIDS = (
    ("eyeBlinkRight", (37, 38), (41, 40)),
    ("eyeBlinkLeft", (43, 44), (47, 46)),
)  # iBUG points of the upper and lower lid
_SHADOW = 0.4  # share of the light that an occluder's shadow takes
_BACKGROUND_PX = 256  # px; backgrounds are out of focus


@dataclass(frozen=True)
class LayoutSubject:
    """A person of a layout; meshes hold all vertices of the source's head, mm in the model frame."""

    head: Head
    sliders: Float[Tensor, "targets"]
    painted: PaintedHead
    neutral: Float[Tensor, "s 3"]
    basis: Float[Tensor, "exps s 3"]
    light: Light
    settings: CameraSettings
    background: Float[Tensor, "3 size size"]

    @property
    def expression_names(self) -> tuple[str, ...]:
        """Names of the expression weights."""
        return self.head.source.expression_names

    @property
    def n_face(self) -> int:
        """Number of leading vertices that are the default face's."""
        return self.head.source.n_face

    def limit_blinks(self, weights: Float[Tensor, "exps"]) -> Float[Tensor, "exps"]:
        """The weights with blinks reduced until the lids meet.

        A full blink of the source moves the upper lid 2 to 4 mm past the lower one.
        """
        limited = weights.clone()
        vertices = self.expression_vertices(weights)
        for blink, upper, lower in _LIDS:
            k = self.expression_names.index(blink)
            above, below = (self.head.marks[list(rows)] for rows in (upper, lower))
            opening = (vertices[above, 1] - vertices[below, 1]).mean()
            per_blink = (self.basis[k, above, 1] - self.basis[k, below, 1]).mean()
            limited[k] += (opening.clamp_max(0) / -per_blink).clamp_min(-float(weights[k]))
        return limited

    def expression_vertices(self, weights: Float[Tensor, "exps"]) -> Float[Tensor, "s 3"]:
        """The vertices of the head with an expression."""
        vertices: Tensor = self.neutral + torch.tensordot(weights, self.basis, 1)
        return vertices


def draw_layout_subject(spec: LayoutSpec, number: int) -> LayoutSubject:
    """The layout's person of this number, with one light and camera setting for all its images."""
    head = load_head()
    drawn = draw_subject(head.source, spec.generator(number, "identity"), spec.generator(number, "appearance"))
    neutral = head.source.identity_vertices(drawn.sliders[None])
    room = spec.generator(number, "room")
    return LayoutSubject(
        head=head,
        sliders=drawn.sliders,
        painted=paint_head(head, drawn.look, spec.generator(number, "texture")),
        neutral=neutral[0],
        basis=head.source.expression_basis(neutral)[0],
        light=draw_light(room),
        settings=replace(draw_camera_settings(room), grey=False),
        background=draw_background(_BACKGROUND_PX, room),
    )


def render_image(
    subject: LayoutSubject,
    vertices: Float[Tensor, "s 3"],
    camera: Camera,
    shape: tuple[int, int],
    *,
    generator: torch.Generator,
    occluders: Sequence[Occluder] = (),
    finer: int = 1,
) -> UInt8[np.ndarray, "height width 3"]:
    """An image of `shape` (rows, columns) px through `camera`, rendered at 1 / `finer` of its resolution.

    Raises ValueError where `shape` is not divisible by `finer`.
    """
    if shape[0] % finer or shape[1] % finer:
        raise ValueError(f"shape must be divisible by finer = {finer}; got {shape}")
    small = (shape[0] // finer, shape[1] // finer)
    coarse = replace(camera, scale=camera.scale / finer, translation=(camera.translation + 0.5) / finer - 0.5)
    background: Tensor = interpolate(subject.background[None], small, mode="bilinear", align_corners=False)[0]
    meshes = (subject.neutral, vertices)
    radiance, mean = render_head(
        subject.head,
        subject.painted,
        meshes,
        coarse,
        light=subject.light,
        gaze=draw_gaze(generator),
        background=background,
        generator=generator,
    )
    if occluders:
        points, triangles = full_mesh(subject.head, subject.painted, *meshes)
        radiance = _draw_occluders(radiance, (points, triangles), occluders, coarse, subject.light)
    shown = expose(radiance, mean, subject.settings, generator)
    pixels = (shown * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    if finer == 1:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def _draw_occluders(
    radiance: Float[Tensor, "3 h w"],
    head: tuple[Float[Tensor, "v 3"], Tensor],
    occluders: Sequence[Occluder],
    camera: Camera,
    light: Light,
) -> Float[Tensor, "3 h w"]:
    """The radiance with occluders drawn over the head, and their soft shadow on it."""
    points, triangles = head
    lit = []
    for each in occluders:
        triangles = torch.cat([triangles, each.triangles + len(points)])
        points = torch.cat([points, each.vertices])
        normals = vertex_normals(each.vertices @ camera.rotation.mT, each.triangles)
        shade = light.ambient(normals) + (normals @ light.key).clamp_min(0)[:, None] * light.key_colour
        lit.append(torch.tensor(each.colour) * shade)
    view = points @ camera.rotation.mT
    flat = camera.scale * view[:, :2] * torch.tensor([1.0, -1.0]) + camera.translation
    height, width = radiance.shape[1:]
    raster = get_backend().rasterise(torch.cat([flat, view[:, 2:]], dim=1), triangles, height, width)
    front = (raster.triangle >= len(head[1])).flatten().nonzero()[:, 0]
    if not len(front):
        return radiance
    corners = triangles[raster.triangle.flatten()[front]] - len(head[0])
    layer = torch.zeros(4, height * width)
    weights = raster.barycentric.reshape(-1, 3)[front]
    layer[:3, front] = embedding_bag(corners, torch.cat(lit), per_sample_weights=weights, mode="sum").T
    layer[3, front] = 1.0
    layer = layer.reshape(4, height, width)
    step = (-8 * light.key[:2] * torch.tensor([1.0, -1.0])).round().int().tolist()
    shadow = blur(layer[3].roll((step[1] + 3, step[0]), (0, 1)), 4.0)
    soft = blur(layer, 0.6)
    return soft[:3] + (1 - soft[3]) * radiance * (1 - _SHADOW * shadow)
