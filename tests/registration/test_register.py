"""Registration as a whole: on scans of people outside the model's span, from landmarks to measures and flags."""

import math

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.landmarks.scheme import GROUPS_66, N_INNER
from facerecon_torch.model.default_face import load_default_face
from facerecon_torch.registration.scan.landmark_lifting import lift_landmarks
from facerecon_torch.registration.scan.register import FLAGS, RegistrationSpec, register, sample_face, scan_distance
from facerecon_torch.registration.scan.surface import resample_grid, resample_mesh, stack_scans
from facerecon_torch.synthetic.noise_table import load_noise_table, noise_file, sample_landmark_noise
from tests.registration.scanning import draw_faces, pose, scan_grid

EYES = list(GROUPS_66["eyes"])
LABELLED = [0, 4, 5, 9, 13, 14, 18, 19, 22, 25, 28, 31, 37, 57]  # paper rows that data sets tend to have


@pytest.fixture(scope="module")
def model():
    return load_default_face()


def _scan(mesh, yaw, model, rng):
    """(scan, labelled, lifted, truth in the sensor's frame): noise, spikes, two holes, detector's errors."""
    rotation, translation = pose(yaw)
    truth = mesh @ rotation.mT + translation
    points, valid = scan_grid(truth, model.topology.triangles, rng)
    for vertex in torch.randint(0, len(truth), (2,), generator=rng):
        valid = valid & ((points[..., :2] - truth[vertex, :2]).norm(dim=-1) > 8)
    marks = truth[model.topology.landmark_vertices]
    flip = torch.tensor([1.0, -1.0])
    table, angles = load_noise_table(noise_file("ibug")), torch.tensor([[math.radians(yaw), 0.0, 0.0]])
    errors = sample_landmark_noise(angles, torch.ones(1), table, rng)[0]
    lifted = lift_landmarks(points, valid, points[..., :2] * flip, marks[:, :2] * flip + errors)
    labelled = torch.full((66, 3), torch.nan)
    labelled[LABELLED] = marks[LABELLED] + 0.5 * torch.randn(len(LABELLED), 3, generator=rng)
    return resample_grid(points, valid), labelled, lifted, truth


def _scans(faces, yaws, model, rng):
    parts = [_scan(face, yaw, model, rng) for face, yaw in zip(faces, yaws)]
    scans, *rest = zip(*parts)
    return stack_scans(scans), *(torch.stack(part) for part in rest)


def _errors(answer, truth, model):
    """(distance along the true normal, slide) of covered vertices; both [n]."""
    moved = answer.mesh @ answer.rotation.mT + answer.translation[:, None]
    normals = vertex_normals(truth, model.topology.triangles)
    along = ((moved - truth) * normals).sum(-1)
    slide = (moved - truth - along[..., None] * normals).norm(dim=-1)
    return along.abs()[answer.covered], slide[answer.covered]


@pytest.fixture(scope="module")
def registered(model):
    rng = torch.Generator().manual_seed(3)
    scans, labelled, lifted, truth = _scans(draw_faces(3), [0.0, 25.0, -35.0], model, rng)
    return (scans, labelled, lifted, truth), register(model, scans, labelled, lifted)


def test_the_mesh_lies_on_the_true_face(registered, model):
    (_, _, _, truth), answer = registered
    along, _ = _errors(answer, truth, model)
    assert len(along) > 3 * 800
    assert float(along.median()) < 0.25
    assert float(along.quantile(0.95)) < 1.0
    assert answer.flags == ((), (), ())


def test_measures_say_what_they_promise(registered, model):
    (_, labelled, lifted, _), answer = registered
    measures, topology = answer.measures, model.topology
    assert bool((measures["scan_to_mesh"] < 0.3).all())
    assert bool((measures["scan_to_mesh"] < measures["scan_to_fit"]).all())
    assert bool((measures["folded"] == 0).all())
    moved = answer.mesh @ answer.rotation.mT + answer.translation[:, None]
    marks = moved[:, topology.landmark_vertices]
    rows = torch.tensor([row for row in LABELLED if row < N_INNER])
    want = (marks - labelled).norm(dim=-1)[:, rows]
    assert_close(measures["landmark_residual"], want.median(1).values)
    want = (marks - lifted)[:, EYES, :2].norm(dim=-1)
    assert_close(measures["eyelid_residual"], want.nanmedian(1).values)
    share = answer.covered[:, topology.whole_vertices].float().mean(1)
    assert_close(measures["covered_share"], share)


def test_the_distance_is_that_of_a_mesh_moved_by_as_much(model):
    mean = model.vertices(model.identity_mean, model.expression_mean)[None]
    scans = resample_mesh(mean[0], model.topology.triangles)
    points, on_face = sample_face(scans, mean, model.topology, points=3000, reach=10.0)
    assert int(on_face.sum()) > 800
    assert float(scan_distance(points, on_face, mean, model.topology.triangles)) < 0.05
    normals = vertex_normals(mean, model.topology.triangles)
    away = float(scan_distance(points, on_face, mean + 0.5 * normals, model.topology.triangles))
    assert away == pytest.approx(0.5, abs=0.05)
    points, on_face = sample_face(scans, mean + 300, model.topology, points=3000, reach=10.0)
    assert not bool(on_face.any())
    assert bool(scan_distance(points, on_face, mean, model.topology.triangles).isnan().all())


def test_what_can_not_be_registered_is_flagged_and_harms_nobody(registered, model):
    (scans, labelled, lifted, _), answer = registered
    labelled, lifted = labelled.clone(), lifted.clone()
    labelled[1], lifted[1] = torch.nan, torch.nan
    labelled[2] = torch.nan
    again = register(model, scans, labelled, lifted)
    assert again.flags[0] == ()
    assert {"failed", "few_landmarks", "no_lifted"} <= set(again.flags[1])
    assert "no_lifted" not in again.flags[2]
    assert all(set(flags) <= set(FLAGS) for flags in again.flags)
    assert_close(again.mesh[0], answer.mesh[0], atol=2e-2, rtol=0)
    assert bool(torch.isfinite(again.mesh).all())


def test_one_subject_has_one_identity(registered, model):
    (scans, labelled, lifted, _), _ = registered
    spec = RegistrationSpec(identity="per_subject", chunk=2)
    groups = torch.tensor([4, 9, 4])
    answer = register(model, scans, labelled, lifted, spec, groups)
    identity = answer.parameters.identity
    assert_close(identity[0], identity[2])
    assert float((identity[0] - identity[1]).abs().max()) > 1e-3
    assert len(answer.mesh) == len(answer.flags) == 3
    with pytest.raises(ValueError, match="groups"):
        register(model, scans, labelled, lifted, spec)
    alone = register(model, scans, labelled, lifted, RegistrationSpec(chunk=2), groups)  # groups do not count here
    assert float((alone.parameters.identity[0] - alone.parameters.identity[2]).abs().max()) > 1e-3


def test_specs_say_what_they_want():
    with pytest.raises(ValueError, match="identity"):
        RegistrationSpec(identity="per_face")
    with pytest.raises(ValueError, match="chunk"):
        RegistrationSpec(chunk=0)
    with pytest.raises(ValueError, match="reach"):
        RegistrationSpec(reach=-1)


@pytest.mark.slow
def test_a_hundred_scans_meet_the_targets(model, capsys):
    rng = torch.Generator().manual_seed(8)
    faces = draw_faces(100, seed=5)
    yaws = [0.0, 0.0, 20.0, -20.0, 30.0, 0.0, -10.0, 45.0, 0.0, -30.0] * 10
    along, slide, folded = [], [], 0
    for start in range(0, 100, 10):
        part = slice(start, start + 10)
        scans, labelled, lifted, truth = _scans(faces[part], yaws[part], model, rng)
        answer = register(model, scans, labelled, lifted)
        a, s = _errors(answer, truth, model)
        along.append(a)
        slide.append(s)
        folded += int(answer.measures["folded"].sum())
    along, slide = torch.cat(along), torch.cat(slide)
    with capsys.disabled():
        print(  # noqa: T201
            f"\nM, {len(along)} covered vertices: median {float(along.median()):.3f} mm, p95 "
            f"{float(along.quantile(0.95)):.3f} mm, slide median {float(slide.median()):.3f} mm, {folded} folded"
        )
    assert float(along.median()) <= 0.25
    assert float(along.quantile(0.95)) <= 1.0
    assert folded == 0
