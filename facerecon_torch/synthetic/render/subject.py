"""Renderer of all images of one subject, with their truth."""

from collections.abc import Iterator

import torch
from torch import Tensor

from facerecon_torch.model.default_face import FaceSource
from facerecon_torch.synthetic.people.head import Head, contour_candidates, load_head, true_landmarks
from facerecon_torch.synthetic.people.sampling import (
    draw_camera,
    draw_expression,
    draw_gaze,
    draw_pose,
    draw_subject,
)
from facerecon_torch.synthetic.render.lighting import draw_light
from facerecon_torch.synthetic.render.photograph import draw_background, draw_camera_settings, encode_jpeg, expose
from facerecon_torch.synthetic.render.render import PaintedHead, paint_head, render_head
from facerecon_torch.synthetic.spec import SyntheticSpec

__all__ = ["render_subject", "warm_up"]


def warm_up() -> FaceSource:
    """The source of the heads, after all tables that rendering needs are loaded."""
    contour_candidates()
    return load_head().source


def render_subject(spec: SyntheticSpec, subject: int) -> Iterator[tuple[bytes, dict[str, Tensor]]]:
    """The JPEG bytes and the truth of every image of one subject, in order."""
    head = load_head()
    identity, appearance = spec.generator(subject, "identity"), spec.generator(subject, "appearance")
    drawn = draw_subject(head.source, identity, appearance, shifted=spec.family == "shifted")
    painted = paint_head(head, drawn.look, spec.generator(subject, "texture"))
    neutral = head.source.identity_vertices(drawn.sliders[None])
    basis = head.source.expression_basis(neutral)[0]
    for image in range(spec.images_per_subject):
        generator = spec.generator(subject, "image", image)
        weights = draw_expression(head.source.expression_names, generator)
        vertices = neutral[0] + torch.tensordot(weights, basis, 1)
        jpeg, row = _render_image(spec, head, painted, (neutral[0], vertices), generator)
        macro = drawn.macro
        row |= {
            "subjects": torch.tensor(spec.subject_id(subject)),
            "expression_weights": weights,
            "macro": torch.tensor([macro.gender, macro.age, macro.african, macro.asian, macro.caucasian]),
        }
        yield jpeg, row


def _render_image(
    spec: SyntheticSpec, head: Head, painted: PaintedHead, meshes: tuple[Tensor, Tensor], generator: torch.Generator
) -> tuple[bytes, dict[str, Tensor]]:
    shifted = spec.family == "shifted"
    face = meshes[1][: head.source.n_face].contiguous()
    angles = draw_pose(generator)
    camera = draw_camera(angles, face[head.marks], spec.size, generator)
    landmarks, contour = true_landmarks(face, camera)
    light = draw_light(generator, shifted=shifted)
    gaze = draw_gaze(generator)
    background = draw_background(spec.size, generator)
    radiance, mean = render_head(
        head, painted, meshes, camera, light=light, gaze=gaze, background=background, generator=generator
    )
    settings = draw_camera_settings(generator)
    jpeg = encode_jpeg(expose(radiance, mean, settings, generator), settings.quality)
    row = {
        "vertices": face,
        "rotation": camera.rotation,
        "scale": camera.scale,
        "translation": camera.translation,
        "landmarks": landmarks,
        "contour_vertices": contour,
        "angles": angles,
    }
    return jpeg, row
