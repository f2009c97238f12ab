"""Correspondence of the default face with meshes by others: places, sides of the mouth, refusals, the cached file."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.errors import ModelFileError
from facerecon_torch.model.default_face import load_default_face, load_source, load_topology
from facerecon_torch.registration.topology import correspondence_file
from facerecon_torch.registration.topology.correspondence import CorrespondenceSpec, find_correspondence
from facerecon_torch.registration.topology.sides import slit_sides
from tests.registration.foreign_face import make_foreign_face
from tests.synthetic.own_models import linear_model


@pytest.fixture(scope="module")
def found():
    model = linear_model()
    return model, find_correspondence(model.mean, model.topology)


def test_points_lie_where_the_default_face_has_them(found):
    model, correspondence = found
    face = make_foreign_face()
    truth = (face.truth - face.vertices.mean(0)).float()[correspondence.vertices]
    distance = (correspondence.points(model.mean) - truth).norm(dim=-1)
    assert float(distance.median()) < 1.0
    assert float(distance.quantile(0.95)) < 3.0
    assert_close(correspondence.weights.sum(1), torch.ones(len(truth)))
    aligned = correspondence.alignment.apply(load_source().mean[correspondence.vertices])
    assert float((aligned - truth).norm(dim=-1).median()) < 6.0  # another person, whom a similarity alone meets so well


def test_no_lip_corresponds_with_the_other_lip(found):
    model, correspondence = found
    face = load_default_face()
    own = slit_sides(load_source().mean[: face.n_vertices], face.topology.triangles, face.topology.landmark_vertices)[
        :, correspondence.vertices
    ]
    topology = model.topology
    other = slit_sides(model.mean, topology.triangles, topology.landmark_vertices)
    for slit in range(3):
        corners = other[slit][correspondence.corners]
        assert int((own[slit] == 1).sum()) > 30 < int((own[slit] == -1).sum())
        assert not bool(((own[slit][:, None] * corners) < 0).any())


def test_sides_of_the_mouth_are_those_of_its_landmarks():
    topology, mean = load_topology(), load_source().mean
    sides = slit_sides(mean[: topology.n_vertices], topology.triangles, topology.landmark_vertices)
    mouth = sides[0][topology.landmark_vertices[[34, 45, 40, 48]]]  # middles: outer and inner, above and below
    assert mouth.tolist() == [1, 1, -1, -1]
    assert int((sides[0] != 0).sum()) < topology.n_vertices // 4  # far from the mouth there are no sides


def test_the_default_faces_own_mesh_corresponds_vertex_by_vertex():
    face = load_default_face()
    neutral = face.vertices(face.identity_mean, face.named.origin)
    correspondence = find_correspondence(neutral, face.topology)
    assert_close(correspondence.points(neutral), neutral)


def test_half_a_face_is_refused_with_its_share():
    model = linear_model()
    left = (model.mean[:, 0] < 8)[model.topology.triangles].all(-1)
    half = replace(model.topology, triangles=model.topology.triangles[left])
    with pytest.raises(ModelFileError, match=r"at least 75% .*; \d\d% of it have no correspondence"):
        find_correspondence(model.mean, half)


def test_a_bad_fit_is_refused_with_its_residual(found):
    model, _ = found
    with pytest.raises(ModelFileError, match=r"within 0\.001 mm \(median distance\); got"):
        find_correspondence(model.mean, model.topology, spec=CorrespondenceSpec(residual=1e-3))


def test_it_is_found_once_and_kept(found, tmp_path, monkeypatch):
    model, correspondence = found
    calls = []

    def find(neutral, topology):
        calls.append(len(neutral))
        return correspondence

    monkeypatch.setattr(correspondence_file, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(correspondence_file, "find_correspondence", find)
    first = correspondence_file.load_correspondence(model.mean, model.topology, model.sha256)
    again = correspondence_file.load_correspondence(model.mean, model.topology, model.sha256)
    assert len(calls) == 1
    for name in ("vertices", "corners", "weights"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert torch.equal(first.alignment.rotation, again.alignment.rotation)
    (file,) = tmp_path.glob("correspondence-*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    correspondence_file.load_correspondence(model.mean, model.topology, model.sha256)
    assert len(calls) == 2  # a damaged file is made again
    correspondence_file.load_correspondence(model.mean, model.topology, "another model")
    assert len(calls) == 3
