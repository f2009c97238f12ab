"""People are disjoint between sets; poses, expressions and cameras stay within their limits and reach them."""

import math

import torch

from facerecon_torch.geometry.projection import project
from facerecon_torch.model.default_face import load_source, load_topology
from facerecon_torch.synthetic import SyntheticSpec
from facerecon_torch.synthetic.people.sampling import (
    POSE_LIMIT_DEGREES,
    draw_camera,
    draw_expression,
    draw_pose,
    draw_subject,
)


def _sliders(spec: SyntheticSpec, subject: int) -> torch.Tensor:
    identity, appearance = spec.generator(subject, "identity"), spec.generator(subject, "appearance")
    return draw_subject(load_source(), identity, appearance, shifted=spec.family == "shifted").sliders


def test_nobody_appears_in_two_sets() -> None:
    specs = [SyntheticSpec(subjects=4, images_per_subject=1, family=f) for f in ("train", "test", "shifted")]
    people = torch.stack([_sliders(spec, s) for spec in specs for s in range(4)])
    distance = torch.cdist(people, people) + torch.eye(len(people)) * 1e3
    assert float(distance.min()) > 0.1


def test_shifted_moves_sliders_that_training_never_does() -> None:
    moved = {}
    for family in ("train", "shifted"):
        spec = SyntheticSpec(subjects=6, images_per_subject=1, family=family)
        people = torch.stack([_sliders(spec, s) for s in range(6)])
        moved[family] = people.ne(0).any(0)
    assert int((moved["shifted"] & ~moved["train"]).sum()) > 20


def test_poses_fill_their_limits(rng: torch.Generator) -> None:
    degrees = torch.stack([draw_pose(rng) for _ in range(1500)]) * (180 / math.pi)
    limit = torch.tensor(POSE_LIMIT_DEGREES)
    assert bool((degrees.abs() <= limit + 1e-3).all())
    assert bool((degrees.amax(0) > 0.9 * limit).all())
    assert bool((degrees.amin(0) < -0.9 * limit).all())
    share_frontal = float((degrees[:, 0].abs() < 20).float().mean())
    assert 0.45 < share_frontal < 0.7  # a uniform yaw would give 0.33


def test_expressions_are_sparse_weights(rng: torch.Generator) -> None:
    names = load_source().expression_names
    drawn = torch.stack([draw_expression(names, rng) for _ in range(400)])
    assert bool(((drawn >= 0) & (drawn <= 1)).all())
    assert 0.05 < float((drawn.sum(1) == 0).float().mean()) < 0.25  # neutral faces
    assert float((drawn > 0).sum(1).float().mean()) < 8
    assert bool((drawn.amax(0) > 0.3).all())  # every expression is made by someone


def test_cameras_keep_the_landmarks_in_the_picture(rng: torch.Generator) -> None:
    face = load_source().mean[load_topology().landmark_vertices]
    scales = []
    for _ in range(200):
        camera = draw_camera(draw_pose(rng), face, 448, rng)
        points = project(face, camera)
        assert float(points.min()) > 0.1 * 448
        assert float(points.max()) < 0.9 * 448
        scales.append(float(camera.scale))
    assert min(scales) < 1.1
    assert max(scales) > 2.0
