"""One identity for several pictures: its value, what tells strangers, and the same from a table's columns."""

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.cascade import joint_identity
from facerecon_torch.cascade.joint_columns import join_columns
from facerecon_torch.cascade.joint_identity import join_identities
from facerecon_torch.geometry.projection import project
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.landmarks.scheme import N_INNER
from facerecon_torch.model.default_face import load_default_face
from facerecon_torch.structures import FaceParameters
from tests.tiny_model import tiny_bilinear


def turned(yaw):
    zeros = torch.zeros_like(yaw)
    return euler_to_matrix(yaw, zeros, zeros)


def slow_joint(identity, yaw, subject, model):
    """The formula of the module's description, one person after the other."""
    mean, rows = model.identity_mean.double(), []
    for one in subject.tolist():
        mine = [k for k, other in enumerate(subject.tolist()) if other == one]
        weights = [1 / (1 + joint_identity.STEEPNESS * (float(torch.rad2deg(yaw[k])) / 45) ** 2) for k in mine]
        middle = sum(w * identity[k].double() for w, k in zip(weights, mine)) / sum(weights)
        r = joint_identity.SHRINKAGE
        count = sum(weights) ** 2 / sum(w**2 for w in weights)
        rows.append(mean + (1 + r) / (1 + r / count) * (middle - mean))
    return torch.stack(rows)


def test_the_joint_identity_is_that_of_the_formula(dtype, rng, tolerance):
    model = tiny_bilinear().to(dtype)
    subject = torch.tensor([7, 3, 7, 7, 3, 5])
    identity = model.identity_mean + torch.randn(6, model.n_identity, generator=rng).to(dtype)
    yaw = (torch.rand(6, generator=rng) - 0.5).to(dtype)
    person = join_identities(identity, turned(yaw), subject, model)
    assert person.identity.dtype == dtype
    assert_close(person.identity.double(), slow_joint(identity, yaw, subject, model), rtol=tolerance, atol=tolerance)
    assert person.pictures.tolist() == [3, 2, 3, 3, 2, 1]
    assert float(person.distance[5]) == float(person.spread[5]) == 0.0


def test_one_picture_keeps_its_identity(rng):
    model = tiny_bilinear()
    identity = model.identity_mean + torch.randn(3, model.n_identity, generator=rng)
    person = join_identities(identity, turned(torch.tensor([0.0, 0.5, -1.0])), torch.arange(3), model)
    assert_close(person.identity, identity, rtol=1e-4, atol=1e-4)


def test_unknown_pictures_take_the_identity_of_the_others(rng):
    model = tiny_bilinear()
    identity = model.identity_mean + torch.randn(4, model.n_identity, generator=rng)
    known = torch.tensor([True, True, False, False])
    rotation, subject = torch.eye(3).expand(4, 3, 3), torch.tensor([0, 0, 0, 1])
    person = join_identities(identity, rotation, subject, model, known)
    pair = join_identities(identity[:2], rotation[:2], subject[:2], model)
    assert_close(person.identity[:3], pair.identity[:1].expand(3, -1))
    assert_close(person.identity[3], model.identity_mean)


def people(rng, each, error=0.25):
    """Estimates for pictures of 12 people of the default face."""
    model = load_default_face()
    spread = model.identity_variance.sqrt()
    who = model.identity_mean + 0.8 * spread * torch.randn(12, model.n_identity, generator=rng)
    subject = torch.arange(12).repeat_interleave(each)
    return model, who[subject] + error * spread * torch.randn(len(subject), model.n_identity, generator=rng), subject


def test_shuffled_people_are_mixed_and_a_stranger_is_found(rng):
    model, identity, subject = people(rng, 8)
    rotation = torch.eye(3).expand(len(subject), 3, 3)
    right = join_identities(identity, rotation, subject, model)
    assert not bool(right.mixed.any())
    assert float(right.stranger.double().mean()) < 0.02
    assert bool(join_identities(identity, rotation, torch.arange(len(subject)) % 12, model).mixed.all())
    swapped = subject.clone()
    swapped[[0, 8]] = subject[[8, 0]]
    person = join_identities(identity, rotation, swapped, model)
    assert set(person.distance.argsort()[-2:].tolist()) == {0, 8}


def test_join_solves_expression_and_camera_again(photographs, tiny_outcome):
    images, landmarks = photographs
    model = tiny_outcome.reconstructor
    faces = model.reconstruct(images, landmarks)
    joined, person = model.join(faces, torch.tensor([0, 0, 0, 1, 1]))
    assert_close(joined.parameters.identity, person.identity)
    assert_close(joined.parameters.identity[0], joined.parameters.identity[2])
    fitted, kept = model.solvers.fitter, joined.parameters
    _, points, _ = fitted.refine(kept, landmarks, joined.camera)
    assert_close(joined.landmarks_3d, points, rtol=1e-3, atol=1e-2)
    plain = FaceParameters(person.identity, faces.parameters.expression)
    camera, points, _ = fitted.refine(plain, landmarks, faces.camera)
    gaps = [
        (projected - landmarks)[:, :N_INNER].norm(dim=-1).mean()
        for projected in (joined.projected_2d, project(points, camera))
    ]
    assert gaps[0] < gaps[1]  # the expression was solved again


def test_columns_join_as_faces_do(photographs, tiny_outcome):
    images, landmarks = photographs
    model, subject = tiny_outcome.reconstructor, torch.tensor([4, 2, 4, 2, 4])
    faces = model.reconstruct(images, landmarks)
    joined, person = model.join(faces, subject)
    columns = {
        "alpha": faces.parameters.identity,
        "beta": faces.parameters.expression,
        "rotation": faces.camera.rotation.flatten(1),
        "landmarks_2d": faces.landmarks,
    }
    table = join_columns(columns, subject, model)
    assert_close(table["alpha"], joined.parameters.identity)
    assert_close(table["scale"], joined.camera.scale)
    assert_close(table["subject_spread_mm"], person.spread)
    with pytest.raises(ValueError, match="missing are landmarks_2d"):
        join_columns({name: columns[name] for name in list(columns)[:3]}, subject, model)
    with pytest.raises(ValueError, match=r"subject must be \[5\]"):
        join_columns(columns, subject[:4], model)
