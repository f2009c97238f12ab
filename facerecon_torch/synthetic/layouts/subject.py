"""One person of a layout in front of the camera: shape, looks, light, and pictures of any size."""

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
from facerecon_torch.synthetic.people.head import Head, load_head
from facerecon_torch.synthetic.people.occluders import Occluder
from facerecon_torch.synthetic.people.sampling import Subject, draw_gaze, draw_person
from facerecon_torch.synthetic.render.background import draw_background
from facerecon_torch.synthetic.render.camera_effects import Shot, draw_shot, expose
from facerecon_torch.synthetic.render.lighting import Light, draw_light
from facerecon_torch.synthetic.render.render import Person, full_mesh, make_person, render_head
from facerecon_torch.synthetic.skin.strokes import blur

__all__ = ["Sitter", "invite", "take_picture"]

_LIDS = (("eyeBlinkRight", (37, 38), (41, 40)), ("eyeBlinkLeft", (43, 44), (47, 46)))  # iBUG's points of both lids
_SHADE = 0.4  # what an occluder takes of the light behind it
_BACKDROP = 256  # px; backgrounds are out of focus


@dataclass(frozen=True)
class Sitter:
    """A person of a layout; meshes in mm, model frame, over all vertices of the source's head."""

    head: Head
    subject: Subject
    person: Person
    neutral: Float[Tensor, "s 3"]
    basis: Float[Tensor, "exps s 3"]
    light: Light
    shot: Shot
    backdrop: Float[Tensor, "3 size size"]

    @property
    def expression_names(self) -> tuple[str, ...]:
        """What a row of weights runs over."""
        return self.head.source.expression_names

    @property
    def n_face(self) -> int:
        """The first so many vertices are the default face's."""
        return self.head.source.n_face

    def meet_lids(self, weights: Float[Tensor, "exps"]) -> Float[Tensor, "exps"]:
        """The same expression with lids that meet where they would cross: a full blink of the source pulls the upper
        lid 2 to 4 mm past the lower one, and no true surface does that."""
        met = weights.clone()
        for blink, upper, lower in _LIDS:
            k = self.expression_names.index(blink)
            above, below = (self.head.marks[list(rows)] for rows in (upper, lower))
            opening = (self.express(weights)[above, 1] - self.express(weights)[below, 1]).mean()
            per_blink = (self.basis[k, above, 1] - self.basis[k, below, 1]).mean()
            met[k] += (opening.clamp_max(0) / -per_blink).clamp_min(-float(weights[k]))
        return met

    def express(self, weights: Float[Tensor, "exps"]) -> Float[Tensor, "s 3"]:
        """The head with an expression."""
        moved: Tensor = self.neutral + torch.tensordot(weights, self.basis, 1)
        return moved


def invite(spec: LayoutSpec, number: int) -> Sitter:
    """The layout's person of this number: one light and one camera setting for all of the pictures."""
    head = load_head()
    someone = draw_person(head.source, spec.generator(number, "identity"), spec.generator(number, "appearance"))
    neutral = head.source.identity_vertices(someone.sliders[None])
    room = spec.generator(number, "room")
    return Sitter(
        head=head,
        subject=someone,
        person=make_person(head, someone.look, spec.generator(number, "texture")),
        neutral=neutral[0],
        basis=head.source.expression_basis(neutral)[0],
        light=draw_light(room),
        shot=replace(draw_shot(room), grey=False),
        backdrop=draw_background(_BACKDROP, room),
    )


def take_picture(
    sitter: Sitter,
    vertices: Float[Tensor, "s 3"],
    camera: Camera,
    shape: tuple[int, int],
    *,
    generator: torch.Generator,
    occluders: Sequence[Occluder] = (),
    finer: int = 1,
) -> UInt8[np.ndarray, "height width 3"]:
    """A photograph of `shape` (rows, columns) px through `camera`, rendered at 1 / `finer` of the resolution.

    `shape` must be divisible by `finer`.
    """
    if shape[0] % finer or shape[1] % finer:
        raise ValueError(f"shape must be divisible by finer = {finer}; got {shape}")
    small = (shape[0] // finer, shape[1] // finer)
    coarse = Camera(
        rotation=camera.rotation,
        scale=camera.scale / finer,
        translation=(camera.translation + 0.5) / finer - 0.5,
        degenerate=camera.degenerate,
    )
    backdrop: Tensor = interpolate(sitter.backdrop[None], small, mode="bilinear", align_corners=False)[0]
    meshes = (sitter.neutral, vertices)
    radiance, mean = render_head(
        sitter.head,
        sitter.person,
        meshes,
        coarse,
        light=sitter.light,
        gaze=draw_gaze(generator),
        background=backdrop,
        generator=generator,
    )
    if occluders:
        points, triangles = full_mesh(sitter.head, sitter.person, *meshes)
        radiance = _cover(radiance, (points, triangles), occluders, coarse, sitter.light)
    shown = expose(radiance, mean, sitter.shot, generator)
    pixels = (shown * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    if finer == 1:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def _cover(
    radiance: Float[Tensor, "3 h w"],
    head: tuple[Float[Tensor, "v 3"], Tensor],
    occluders: Sequence[Occluder],
    camera: Camera,
    light: Light,
) -> Float[Tensor, "3 h w"]:
    """Draw what stands before the head, with its soft shadow on what is behind."""
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
    return soft[:3] + (1 - soft[3]) * radiance * (1 - _SHADE * shadow)
