"""All photographs of one subject, with their truth."""

from collections.abc import Iterator

import torch
from torch import Tensor

from facerecon_torch.model.default_face import FaceSource
from facerecon_torch.synthetic.landmark_truth import contour_candidates, true_landmarks
from facerecon_torch.synthetic.people.head import Head, load_head
from facerecon_torch.synthetic.people.sampling import (
    draw_camera,
    draw_expression,
    draw_gaze,
    draw_pose,
    draw_subject,
)
from facerecon_torch.synthetic.render.background import draw_background
from facerecon_torch.synthetic.render.camera_effects import draw_shot, encode_jpeg, expose
from facerecon_torch.synthetic.render.lighting import draw_light
from facerecon_torch.synthetic.render.render import Person, make_person, render_head
from facerecon_torch.synthetic.spec import SyntheticSpec

__all__ = ["photograph_subject", "warm_up"]


def warm_up() -> FaceSource:
    """Load (and, the first time, compile) what every picture needs; returns the source of the heads."""
    contour_candidates()
    return load_head().source


def photograph_subject(spec: SyntheticSpec, subject: int) -> Iterator[tuple[bytes, dict[str, Tensor]]]:
    """JPEG bytes and truth row of every image of one subject, in order."""
    head = load_head()
    someone = draw_subject(spec, subject, head.source)
    person = make_person(head, someone.look, spec.generator(subject, "texture"))
    neutral = head.source.identity_vertices(someone.sliders[None])
    basis = head.source.expression_basis(neutral)[0]
    for image in range(spec.images_per_subject):
        generator = spec.generator(subject, "image", image)
        weights = draw_expression(head.source.expression_names, generator)
        vertices = neutral[0] + torch.tensordot(weights, basis, 1)
        jpeg, row = _photograph(spec, head, person, (neutral[0], vertices), generator)
        macro = someone.macro
        row |= {
            "subjects": torch.tensor(spec.subject_id(subject)),
            "expression_weights": weights,
            "macro": torch.tensor([macro.gender, macro.age, macro.african, macro.asian, macro.caucasian]),
        }
        yield jpeg, row


def _photograph(
    spec: SyntheticSpec, head: Head, person: Person, meshes: tuple[Tensor, Tensor], generator: torch.Generator
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
        head, person, meshes, camera, light=light, gaze=gaze, background=background, generator=generator
    )
    shot = draw_shot(generator)
    jpeg = encode_jpeg(expose(radiance, mean, shot, generator), shot.quality)
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
