"""One picture of one head: raster, shadow, shading, background, photograph."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag, interpolate, normalize

from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.structures import Camera
from facerecon_torch.synthetic.people.appearance import Appearance
from facerecon_torch.synthetic.people.hair import Hair, grow_hair, hang_curtain
from facerecon_torch.synthetic.people.head import Head
from facerecon_torch.synthetic.procedural import smooth_step, unit
from facerecon_torch.synthetic.render.lighting import Light
from facerecon_torch.synthetic.render.materials import Fragments, Wardrobe, dress
from facerecon_torch.synthetic.render.shading import shade, surroundings
from facerecon_torch.synthetic.skin.texture import paint_skin

__all__ = ["Person", "full_mesh", "make_person", "render_head"]

_FINER = (1.0, 1.5)  # limits of the samples per pixel side ...
_SAMPLES_PER_MM = 2.0  # ... which are chosen for about this many samples per mm
_SHADOW_RAYS = 5
_HANGING = ("long", "medium")


@dataclass(frozen=True)
class Person:
    """One subject's painted skin and hair."""

    look: Appearance
    skin: Float[Tensor, "layers height width"]
    hair: Hair


def make_person(head: Head, look: Appearance, generator: torch.Generator) -> Person:
    """Paint and comb one subject."""
    skin = paint_skin(head.atlas, head.unrolled_marks, look, generator)
    return Person(look, skin, grow_hair(look, head.atlas.axis_depth, generator))


def full_mesh(
    head: Head, person: Person, neutral: Float[Tensor, "s 3"], vertices: Float[Tensor, "s 3"]
) -> tuple[Float[Tensor, "v 3"], Int[Tensor, "t 3"]]:
    """Vertices of everything that is drawn, and their triangles: hair lifted, teeth behind the lips."""
    n, marks = head.n_source, head.marks
    normals = vertex_normals(vertices, head.triangles[(head.triangles < n).all(1)])
    lift = person.hair.lift(head.reference[:n], head.ears[:n])
    if person.look.hair_style == "bald":
        lift = lift * 0
    surface = _widen(vertices + lift[:, None] * normals, head.reference[:n])
    shift = (neutral[marks[[33, 51, 62]]] - head.reference[marks[[33, 51, 62]]]).mean(0)
    jaw = (vertices - neutral)[marks[[8]]].mean(0)
    upper = head.reference[head.upper_teeth] + shift
    lower = head.reference[head.lower_teeth] + shift + jaw
    curtain = hang_curtain(
        person.look, head.reference[head.curtain], surface[lift >= 0.5 * lift.max()], head.atlas.axis_depth
    )
    triangles = head.triangles
    if person.look.hair_style not in _HANGING:
        triangles = triangles[(triangles < int(head.curtain[0])).all(1)]
    return torch.cat([surface, upper, lower, curtain]), triangles


def _widen(vertices: Float[Tensor, "s 3"], reference: Float[Tensor, "s 3"]) -> Float[Tensor, "s 3"]:
    """The source ends at the shoulders; its rim is pulled out and down until no picture shows it."""
    beyond = (reference[:, 0].abs() - 140.0).clamp_min(0) * smooth_step(reference[:, 1], -110.0, -150.0)
    below = (-200.0 - reference[:, 1]).clamp_min(0)
    pull = torch.stack(
        [4.0 * beyond * reference[:, 0].sign(), -2.0 * beyond - 8.0 * below, torch.zeros_like(below)], dim=1
    )
    return vertices + pull


def render_head(
    head: Head,
    person: Person,
    meshes: tuple[Float[Tensor, "s 3"], Float[Tensor, "s 3"]],
    camera: Camera,
    *,
    light: Light,
    gaze: Float[Tensor, "2 3"],
    background: Float[Tensor, "3 height width"],
    generator: torch.Generator,
) -> tuple[Float[Tensor, "3 height width"], Float[Tensor, "3"]]:
    """Radiance of the picture, and the mean radiance of the face's middle. `meshes`: neutral and expressed bust, mm."""
    points, triangles = full_mesh(head, person, *meshes)
    view = points @ camera.rotation.mT
    shape = (background.shape[1], background.shape[2])
    fine = _sampled_shape(shape, camera)
    which, weights, where = _visible(view, triangles, camera, shape, fine)
    normals = vertex_normals(view, triangles)
    shadow = _shadow(view, normals, triangles, light, generator)
    lights = surroundings(normals, head.occlusion, light)
    table = torch.cat([head.reference, normals, *lights, shadow[:, None], head.ears[:, None]], dim=1)
    fragments = _fragments(head.parts[which], table, triangles[which], weights)
    up = camera.rotation[:, 1]
    wardrobe = Wardrobe(person.look, head.atlas, person.skin, person.hair, head.eye_centres, gaze, up)
    colour = shade(fragments, dress(fragments, wardrobe), light, up)
    canvas = torch.zeros(4, fine[0] * fine[1])
    canvas.index_copy_(1, where, torch.cat([colour, torch.ones(1, len(where))]))
    small = _shrink(canvas.reshape(1, 4, *fine), shape)[0]
    x, y, z = fragments.reference
    face = (x.abs() < 45) & (y.abs() < 60) & (z > 0)
    mean = colour[:, face].mean(1) if bool(face.any()) else colour.mean(1)
    return small[:3] + (1 - small[3:]) * background, mean


def _sampled_shape(shape: tuple[int, int], camera: Camera) -> tuple[int, int]:
    """Rows and columns of the raster that is averaged down to `shape` px."""
    finer = min(_FINER[1], max(_FINER[0], _SAMPLES_PER_MM / float(camera.scale)))
    return round(shape[0] * finer), round(shape[1] * finer)


def _visible(
    view: Float[Tensor, "v 3"],
    triangles: Int[Tensor, "t 3"],
    camera: Camera,
    shape: tuple[int, int],
    fine: tuple[int, int],
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n 3"], Int[Tensor, "n"]]:
    """Triangle, corner weights and place in the raster of every covered sample."""
    ratio = torch.tensor([fine[1] / shape[1], fine[0] / shape[0]])
    pixels = camera.scale * view[:, :2] * torch.tensor([1.0, -1.0]) + camera.translation
    corners = torch.cat([(pixels + 0.5) * ratio - 0.5, view[:, 2:]], dim=1)
    raster = get_backend().rasterise(corners, triangles, *fine)
    where = (raster.triangle.flatten() >= 0).nonzero()[:, 0]
    return raster.triangle.flatten()[where], raster.barycentric.reshape(-1, 3)[where], where


def _fragments(
    parts: Int[Tensor, "n"],
    table: Float[Tensor, "v channels"],
    corners: Int[Tensor, "n 3"],
    weights: Float[Tensor, "n 3"],
) -> Fragments:
    """Vertex table interpolated at every visible point."""
    mixed = embedding_bag(corners, table, per_sample_weights=weights, mode="sum").T.contiguous()
    normal = unit(mixed[3:6])
    normal = torch.where(normal[2:] < 0, normal * torch.tensor([[1.0], [1.0], [-1.0]]), normal)
    return Fragments(parts, mixed[:3], normal, mixed[6:9], mixed[9:12], mixed[12], mixed[13])


def _shrink(picture: Float[Tensor, "1 c fine_h fine_w"], shape: tuple[int, int]) -> Float[Tensor, "1 c height width"]:
    if tuple(picture.shape[2:]) == shape:
        return picture
    return interpolate(picture, shape, mode="bilinear", antialias=True, align_corners=False)


def _shadow(view: Tensor, normals: Tensor, triangles: Tensor, light: Light, generator: torch.Generator) -> Tensor:
    """Share of the key light's disc that each vertex sees."""
    spread = torch.randn(_SHADOW_RAYS, 3, generator=generator) * light.softness * 0.6
    rays = normalize(light.key + spread, dim=1)
    facing = torch.nonzero(normals @ light.key > -0.25).flatten()
    start = (view[facing] + 1.2 * normals[facing])[:, None] + 0.6 * rays
    directions = rays.expand(len(facing), -1, -1)
    hits = get_backend().first_hit(start.reshape(-1, 3), directions.reshape(-1, 3), view, triangles)
    free = (hits.distance.reshape(len(facing), -1) > 160.0).float().mean(1)
    shadow = torch.zeros(len(view))
    shadow[facing] = free
    return shadow
