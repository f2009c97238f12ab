"""Renderer of all images of one subject, with their truth: mesh, rasterisation, shadow, shading and background."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag, interpolate, normalize

from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.model.default_face import FaceSource
from facerecon_torch.model.default_face.asset import ADULT_SIZE
from facerecon_torch.structures import Camera
from facerecon_torch.synthetic.people.appearance import Appearance
from facerecon_torch.synthetic.people.hair import Hair, draw_hair, shape_curtain
from facerecon_torch.synthetic.people.head import Head, contour_candidates, load_head, true_landmarks
from facerecon_torch.synthetic.people.model_people import load_model_people
from facerecon_torch.synthetic.people.person import DefaultPerson, Person
from facerecon_torch.synthetic.people.sampling import draw_camera, draw_gaze, draw_pose, draw_subject
from facerecon_torch.synthetic.people.skin import paint_skin
from facerecon_torch.synthetic.procedural import smooth_step, unit
from facerecon_torch.synthetic.render.lighting import Light, draw_light, shade, surroundings
from facerecon_torch.synthetic.render.materials import Fragments, MaterialSources, assign_materials
from facerecon_torch.synthetic.render.photograph import draw_background, draw_camera_settings, encode_jpeg, expose
from facerecon_torch.synthetic.spec import SyntheticSpec

__all__ = ["PaintedHead", "full_mesh", "paint_head", "render_head", "render_subject", "warm_up"]

_FINER = (1.0, 1.5)  # limits of the samples per pixel side
_SAMPLES_PER_MM = 2.0  # the number of samples aims at this density
_SHADOW_RAYS = 5
_HANGING = ("long", "medium")


@dataclass(frozen=True)
class PaintedHead:
    """Appearance, skin texture and hair of one subject."""

    look: Appearance
    skin: Float[Tensor, "layers height width"]
    hair: Hair


def paint_head(head: Head, look: Appearance, generator: torch.Generator) -> PaintedHead:
    """The skin texture and hair of one subject."""
    skin = paint_skin(head.atlas, head.unrolled_marks, look, generator)
    return PaintedHead(look, skin, draw_hair(look, head.atlas.axis_depth, generator))


def full_mesh(
    head: Head, painted: PaintedHead, neutral: Float[Tensor, "s 3"], vertices: Float[Tensor, "s 3"]
) -> tuple[Float[Tensor, "v 3"], Int[Tensor, "t 3"]]:
    """Vertices and triangles of the rendered head: skin and hair surface, teeth, long hair."""
    neutral, vertices = neutral / ADULT_SIZE, vertices / ADULT_SIZE  # the painter's millimetres
    n, marks = head.n_source, head.marks
    normals = vertex_normals(vertices, head.triangles[(head.triangles < n).all(1)])
    thickness = painted.hair.thickness(head.reference[:n], head.ears[:n])
    if painted.look.hair_style == "bald":
        thickness = thickness * 0
    surface = _widen(vertices + thickness[:, None] * normals, head.reference[:n])
    shift = (neutral[marks[[33, 51, 62]]] - head.reference[marks[[33, 51, 62]]]).mean(0)
    jaw = (vertices - neutral)[marks[[8]]].mean(0)
    upper = head.reference[head.upper_teeth] + shift
    lower = head.reference[head.lower_teeth] + shift + jaw
    curtain = shape_curtain(
        painted.look, head.reference[head.curtain], surface[thickness >= 0.5 * thickness.max()], head.atlas.axis_depth
    )
    triangles = head.triangles
    if painted.look.hair_style not in _HANGING:
        triangles = triangles[(triangles < int(head.curtain[0])).all(1)]
    return ADULT_SIZE * torch.cat([surface, upper, lower, curtain]), triangles


def _widen(vertices: Float[Tensor, "s 3"], reference: Float[Tensor, "s 3"]) -> Float[Tensor, "s 3"]:
    """The vertices with the rim of the source, at the shoulders, moved out of view."""
    beyond = (reference[:, 0].abs() - 140.0).clamp_min(0) * smooth_step(reference[:, 1], -110.0, -150.0)
    below = (-200.0 - reference[:, 1]).clamp_min(0)
    pull = torch.stack(
        [4.0 * beyond * reference[:, 0].sign(), -2.0 * beyond - 8.0 * below, torch.zeros_like(below)], dim=1
    )
    return vertices + pull


def render_head(
    head: Head,
    painted: PaintedHead,
    meshes: tuple[Float[Tensor, "s 3"], Float[Tensor, "s 3"]],
    camera: Camera,
    *,
    light: Light,
    gaze: Float[Tensor, "2 3"],
    background: Float[Tensor, "3 height width"],
    generator: torch.Generator,
) -> tuple[Float[Tensor, "3 height width"], Float[Tensor, "3"]]:
    """The radiance of the image, and the mean radiance of the middle of the face.

    `meshes` are the neutral bust and the bust with its expression, mm.
    """
    points, triangles = full_mesh(head, painted, *meshes)
    view = points @ camera.rotation.mT
    shape = (background.shape[1], background.shape[2])
    fine = _sampled_shape(shape, camera)
    triangle, weights, sample = _visible(view, triangles, camera, shape, fine)
    normals = vertex_normals(view, triangles)
    shadow = _shadow(view, normals, triangles, light, generator)
    lights = surroundings(normals, head.occlusion, light)
    table = torch.cat([head.reference, normals, *lights, shadow[:, None], head.ears[:, None]], dim=1)
    fragments = _fragments(head.parts[triangle], table, triangles[triangle], weights)
    up = camera.rotation[:, 1]
    sources = MaterialSources(painted.look, head.atlas, painted.skin, painted.hair, head.eye_centres, gaze, up)
    colour = shade(fragments, assign_materials(fragments, sources), light, up)
    canvas = torch.zeros(4, fine[0] * fine[1])
    canvas.index_copy_(1, sample, torch.cat([colour, torch.ones(1, len(sample))]))
    small = _shrink(canvas.reshape(1, 4, *fine), shape)[0]
    x, y, z = fragments.reference
    face = (x.abs() < 45) & (y.abs() < 60) & (z > 0)
    mean = colour[:, face].mean(1) if bool(face.any()) else colour.mean(1)
    return small[:3] + (1 - small[3:]) * background, mean


def _sampled_shape(shape: tuple[int, int], camera: Camera) -> tuple[int, int]:
    """Rows and columns of the raster whose averages are the image of `shape` px."""
    finer = min(_FINER[1], max(_FINER[0], _SAMPLES_PER_MM / float(camera.scale)))
    return round(shape[0] * finer), round(shape[1] * finer)


def _visible(
    view: Float[Tensor, "v 3"],
    triangles: Int[Tensor, "t 3"],
    camera: Camera,
    shape: tuple[int, int],
    fine: tuple[int, int],
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n 3"], Int[Tensor, "n"]]:
    """Triangle, barycentric weights and index in the raster of every covered sample."""
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
    """The vertex table interpolated at every visible point."""
    mixed = embedding_bag(corners, table, per_sample_weights=weights, mode="sum").T.contiguous()
    normal = unit(mixed[3:6])
    normal = torch.where(normal[2:] < 0, normal * torch.tensor([[1.0], [1.0], [-1.0]]), normal)
    return Fragments(parts, mixed[:3], normal, mixed[6:9], mixed[9:12], mixed[12], mixed[13])


def _shrink(image: Float[Tensor, "1 c fine_h fine_w"], shape: tuple[int, int]) -> Float[Tensor, "1 c height width"]:
    if tuple(image.shape[2:]) == shape:
        return image
    return interpolate(image, shape, mode="bilinear", antialias=True, align_corners=False)


def _shadow(view: Tensor, normals: Tensor, triangles: Tensor, light: Light, generator: torch.Generator) -> Tensor:
    """The visible share of the key light's disc at each vertex."""
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


def warm_up() -> FaceSource:
    """The source of the heads, after all tables that rendering needs are loaded."""
    contour_candidates()
    return load_head().source


def render_subject(
    spec: SyntheticSpec, subject: int, model: Path | None = None
) -> Iterator[tuple[bytes, dict[str, Tensor]]]:
    """The JPEG bytes and the truth of every image of one subject, in order; `model` is the file of the spec's model."""
    head = load_head()
    person = _draw_person(spec, subject, head, model)
    painted = paint_head(head, person.drawn.look, spec.generator(subject, "texture"))
    macro = person.drawn.macro
    for image in range(spec.images_per_subject):
        jpeg, row = _render_image(spec, head, painted, person, spec.generator(subject, "image", image))
        row |= {
            "subjects": torch.tensor(spec.subject_id(subject)),
            "macro": torch.tensor([macro.gender, macro.age, macro.african, macro.asian, macro.caucasian]),
        }
        yield jpeg, row


def _draw_person(spec: SyntheticSpec, subject: int, head: Head, model: Path | None) -> Person:
    identity, appearance = spec.generator(subject, "identity"), spec.generator(subject, "appearance")
    drawn = draw_subject(head.source, identity, appearance, shifted=spec.family == "shifted")
    if model is None:
        return DefaultPerson(head, drawn)
    return load_model_people(model).draw(drawn, spec.generator(subject, "model"))


def _render_image(
    spec: SyntheticSpec, head: Head, painted: PaintedHead, person: Person, generator: torch.Generator
) -> tuple[bytes, dict[str, Tensor]]:
    shifted = spec.family == "shifted"
    posed = person.pose(generator)
    angles = draw_pose(generator)
    camera = draw_camera(angles, posed.framing, spec.size, generator)
    landmarks, contour = true_landmarks(posed.face, camera, person.candidates())
    light = draw_light(generator, shifted=shifted)
    gaze = draw_gaze(generator)
    background = draw_background(spec.size, generator)
    meshes, view = (posed.neutral, posed.head), person.head_camera(camera)
    radiance, mean = render_head(
        head, painted, meshes, view, light=light, gaze=gaze, background=background, generator=generator
    )
    settings = draw_camera_settings(generator, shifted=shifted)
    jpeg = encode_jpeg(expose(radiance, mean, settings, generator), settings.quality)
    row = {
        "vertices": posed.face,
        "rotation": camera.rotation,
        "scale": camera.scale,
        "translation": camera.translation,
        "landmarks": landmarks,
        "contour_vertices": contour,
        "angles": angles,
    }
    return jpeg, row | posed.truth
