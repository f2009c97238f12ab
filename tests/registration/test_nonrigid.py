"""M on scans of known meshes: it follows what was measured, and only that."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.landmarks.scheme import GROUPS_66
from facerecon_torch.model.default_face import load_default_face
from facerecon_torch.registration.scan.eyes import EyelidSpec
from facerecon_torch.registration.scan.icp import ScanFit
from facerecon_torch.registration.scan.nonrigid import DeformSpec, deform, flipped_triangles, moved_as_one, vertices_of
from facerecon_torch.registration.scan.register import lids_off
from facerecon_torch.registration.scan.surface import resample_grid, resample_mesh, stack_scans
from facerecon_torch.structures import FaceParameters
from tests.registration.scanning import pose, scan_grid

EYES = list(GROUPS_66["eyes"])


@pytest.fixture(scope="module")
def model():
    return load_default_face()


@pytest.fixture(scope="module")
def mean(model):
    return model.vertices(model.identity_mean, model.expression_mean)


def _fit(model, n=1, yaw=0.0):
    """The mean face, posed as it truly is."""
    rotation, translation = pose(yaw)
    parameters = FaceParameters(
        identity=model.identity_mean.expand(n, -1), expression=model.expression_mean.expand(n, -1)
    )
    return ScanFit(
        parameters=parameters,
        rotation=rotation.expand(n, 3, 3),
        translation=translation.expand(n, 3),
        inlier_share=torch.ones(n),
        failed=torch.zeros(n, dtype=torch.bool),
    )


def _posed(vertices, yaw=0.0):
    rotation, translation = pose(yaw)
    return vertices @ rotation.mT + translation


def _bump(mean, model, at, height=3.0, width=14.0):
    """The mean face with a smooth bump outwards around a vertex."""
    normals = vertex_normals(mean, model.topology.triangles)
    near = torch.exp(-(mean - mean[at]).square().sum(-1) / (2 * width**2))
    return mean + height * near[:, None] * normals


def _cheek(mean):
    return int((mean - torch.tensor([38.0, -15.0, 25.0])).norm(dim=-1).argmin())


def _nothing(n=1):
    return torch.full((n, 66, 3), torch.nan)


def _off(mesh, truth, model):
    """Distance along the true normal."""
    return ((mesh - truth) * vertex_normals(truth, model.topology.triangles)).sum(-1).abs()


def test_a_scan_of_the_model_changes_nothing(model, mean):
    scans = resample_mesh(_posed(mean, 20.0), model.topology.triangles)
    answer = deform(model, _fit(model, yaw=20.0), scans, _nothing(), _nothing())
    on = answer.covered[0]
    assert int(on.sum()) > 1200
    assert float((answer.mesh[0] - mean).norm(dim=-1)[on].median()) < 0.08
    assert float((answer.mesh[0] - mean).norm(dim=-1).quantile(0.99)) < 0.5
    assert answer.flipped.tolist() == [0]


def test_a_bump_is_followed_without_sliding(model, mean, rng):
    cheek = _cheek(mean)
    truth = _bump(mean, model, cheek)
    scans = resample_grid(*scan_grid(_posed(truth), model.topology.triangles, rng))
    answer = deform(model, _fit(model), scans, _nothing(), _nothing())
    near = (mean - mean[cheek]).norm(dim=-1) < 20
    on = answer.covered[0]
    assert float((near & on).sum() / near.sum()) > 0.75
    assert float(_off(answer.mesh[0], truth, model)[near & on].median()) < 0.15
    assert float(_off(answer.mesh[0], truth, model)[on].quantile(0.95)) < 0.4
    assert float((answer.mesh[0] - truth).norm(dim=-1)[near & on].median()) < 0.4
    assert float(_off(mean, truth, model)[near & on].median()) > 1  # what was to be made good


def test_holes_drag_nothing(model, mean, rng):
    """A hole in the middle of a bump, with a stray surface deep behind it: bridged, not followed, not covered."""
    cheek = _cheek(mean)
    truth = _bump(mean, model, cheek)
    posed = _posed(truth)
    points, valid = scan_grid(posed, model.topology.triangles, rng)
    away = (points[..., :2] - posed[cheek, :2]).norm(dim=-1)
    points[..., 2] -= torch.where((away < 8) & valid, 20.0, 0.0)
    answer = deform(
        model, _fit(model), resample_grid(points, valid & ((away < 6.0) | (away > 10.0))), _nothing(), _nothing()
    )
    inside = (_posed(mean)[:, :2] - posed[cheek, :2]).norm(dim=-1) < 8
    inside &= vertex_normals(mean, model.topology.triangles)[:, 2] > 0.3
    assert int(inside.sum()) >= 5
    assert not bool(answer.covered[0][inside].any())
    shift = ((answer.mesh[0] - mean) * vertex_normals(mean, model.topology.triangles)).sum(-1)[inside]
    assert float(shift.min()) > 1.0  # carried outwards by the rim of the hole, although nothing was seen there
    assert float(shift.max()) < 4.0


def test_the_unseen_half_follows_smoothly_and_is_not_covered(model, mean, rng):
    truth = mean + torch.tensor([0.0, 0.0, 2.0])  # all of it in front of where the fit has it
    posed = _posed(truth)
    points, valid = scan_grid(posed, model.topology.triangles, rng)
    seam = float(posed[model.topology.landmark_vertices[10], 0])  # bridge of the nose
    answer = deform(model, _fit(model), resample_grid(points, valid & (points[..., 0] > seam)), _nothing(), _nothing())
    hidden = _posed(mean)[:, 0] < seam - 2
    assert not bool(answer.covered[0][hidden].any())
    shift = answer.mesh[0] - mean
    edges = model.topology.triangles[:, :2]
    step = (shift[edges[:, 0]] - shift[edges[:, 1]]).norm(dim=-1)
    length = (mean[edges[:, 0]] - mean[edges[:, 1]]).norm(dim=-1)
    across = hidden[edges].any(1)
    assert float((step / length.clamp_min(1))[across].quantile(0.99)) < 0.3  # no tear at the seam
    assert float(shift[hidden].norm(dim=-1).max()) < 4.0  # nothing swings out
    assert float(_off(answer.mesh[0], truth, model)[answer.covered[0]].median()) < 0.15


def _scans_of(meshes, model, rng):
    return [resample_grid(*scan_grid(_posed(m), model.topology.triangles, rng)) for m in meshes]


def test_a_batch_is_its_scans_one_by_one(model, mean, rng):
    scans = _scans_of([mean, _bump(mean, model, _cheek(mean)), 1.01 * mean], model, rng)
    together = deform(model, _fit(model, 3), stack_scans(scans), _nothing(3), _nothing(3))
    for k, scan in enumerate(scans):
        alone = deform(model, _fit(model), scan, _nothing(), _nothing())
        gap = (together.mesh[k] - alone.mesh[0]).abs().amax(-1)
        assert float(gap.quantile(0.99)) < 1e-2
        # A vertex whose foot lies on the border of two cells takes either by the last bit, and their planes differ.
        assert float(gap.max()) < 0.1
        assert float((together.covered[k] != alone.covered[0]).float().mean()) < 1e-3


def test_a_scan_of_a_batch_does_not_depend_on_the_others(model, mean, rng):
    scan, bump, large = _scans_of([mean, _bump(mean, model, _cheek(mean)), 1.01 * mean], model, rng)
    answers = [
        deform(model, _fit(model, 3), stack_scans([scan, *others]), _nothing(3), _nothing(3))
        for others in ((bump, large), (scan, scan))
    ]
    assert torch.equal(answers[0].mesh[0], answers[1].mesh[0])
    assert torch.equal(answers[0].covered[0], answers[1].covered[0])


def test_without_a_scan_the_fitted_mesh_stays(model, mean):
    scans = resample_mesh(_posed(mean), model.topology.triangles)
    empty = dataclasses.replace(scans, valid=torch.zeros_like(scans.valid))
    answer = deform(model, _fit(model), empty, _nothing(), _nothing())
    assert not bool(answer.covered.any())
    skin = answer.mesh[0, : model.n_vertices - 144]  # eyeballs may give way to the lids
    assert_close(skin, mean[: len(skin)], atol=1e-4, rtol=0)


def _blinking(model, share):
    """Parameters of the mean face whose eyes are shut by `share`."""
    named = [model.expression_rows[model.expression_names.index(f"eyeBlink{side}")] for side in ("Left", "Right")]
    neutral = model.expression_rows[model.expression_names.index("neutral")]
    shut = neutral + share * (sum(named) - 2 * neutral)
    return FaceParameters(*(part[None] for part in model.fix_gauge(model.identity_mean, shut)))


def _opening(mesh, model):
    lids = mesh[model.topology.landmark_vertices[EYES]].unflatten(0, (2, 6))
    return float((lids[:, [1, 2], 1] - lids[:, [5, 4], 1]).mean())


@pytest.mark.parametrize(("share", "meet"), [(0.0, False), (0.35, False), (0.65, True)])
def test_lids_meet_where_the_fit_has_nearly_closed_the_eyes(model, share, meet):
    parameters = _blinking(model, share)
    mesh = model.vertices(parameters.identity, parameters.expression)[0]
    scans = resample_mesh(_posed(mesh), model.topology.triangles)
    fit = dataclasses.replace(_fit(model), parameters=parameters)
    answer = deform(model, fit, scans, _nothing(), _nothing())
    before, after = _opening(mesh, model), _opening(answer.mesh[0], model)
    assert answer.flipped.tolist() == [0]
    if meet:
        assert after < 0.5 * before < 2.5  # the scan, open by a slit here, pulls the other way
        kept = deform(model, fit, scans, _nothing(), _nothing(), DeformSpec(eyelids=EyelidSpec(closed=0.0)))
        assert _opening(kept.mesh[0], model) == pytest.approx(before, abs=0.5)
    else:
        assert after == pytest.approx(before, abs=0.5)


def test_labelled_lids_are_followed_where_the_fit_is_wrong(model, mean):
    """The scan's eyes are half shut, the fit's wide open: the surface alone does not tell where lids end."""
    shut = _blinking(model, 0.45)
    truth = model.vertices(shut.identity, shut.expression)[0]
    scans = resample_mesh(_posed(truth), model.topology.triangles)
    labelled = _nothing()
    labelled[0, EYES] = _posed(truth)[model.topology.landmark_vertices[EYES]]
    want, open_wide = _opening(truth, model), _opening(mean, model)
    assert open_wide - want > 3.0
    blind = deform(model, _fit(model), scans, _nothing(), _nothing()).mesh[0]
    told = deform(model, _fit(model), scans, labelled, _nothing()).mesh[0]
    assert abs(_opening(told, model) - want) < 0.5 * abs(_opening(blind, model) - want)
    assert abs(_opening(told, model) - want) < 1.0
    one_eye = labelled.clone()
    one_eye[0, EYES[7]] = torch.nan  # an upper lid of the second eye: not all four points are known
    lids = deform(model, _fit(model), scans, one_eye, _nothing()).mesh[0][model.topology.landmark_vertices[EYES], 1]
    first = float((lids[[1, 2]] - lids[[5, 4]]).mean())
    assert abs(first - want) < 1.5
    marks = model.topology.landmark_vertices
    for mesh, off in ((truth, 0.0), (mean, open_wide - want)):
        assert float(lids_off(_posed(mesh)[marks][None], labelled)[0]) == pytest.approx(off, abs=0.5)
    assert lids_off(_posed(mean)[marks][None], _nothing()).tolist() == [0.0]


def test_eyeballs_move_rigidly_and_stay_behind_the_lids(model, mean):
    truth = mean + torch.tensor([0.5, 0.0, -2.0])
    scans = resample_mesh(_posed(truth), model.topology.triangles)
    mesh = deform(model, _fit(model), scans, _nothing(), _nothing()).mesh[0]
    for ball in (slice(-144, -72), slice(-72, None)):
        shift = mesh[ball] - mean[ball]
        assert float((shift - shift.mean(0)).abs().max()) < 1e-3
        assert float(shift[:, 2].mean()) < -1.5
        rows = model.topology.landmark_vertices[EYES]
        before, after = ((face[rows] - face[ball].mean(0)).norm(dim=-1) for face in (mean, mesh))
        assert float((after - before)[before < 30].min()) > -0.1


def test_the_detector_sees_folds_and_pieces_undo_them(model, mean):
    triangles = model.topology.triangles
    triangle = int(torch.nonzero((triangles == _cheek(mean)).any(1))[0, 0])
    folded = mean.clone()
    a, b, c = triangles[triangle].tolist()
    folded[a] = mean[b] + mean[c] - mean[a]  # mirrored through the middle of the opposite edge
    flipped = flipped_triangles(folded[None], mean[None], triangles)
    assert bool(flipped[0, triangle])
    assert int(flipped.sum()) < 12
    assert not bool(flipped_triangles(mean @ pose(0)[0], mean, triangles).any())
    around = vertices_of(flipped, triangles, len(mean), rings=1)[0]
    assert bool(around[[a, b, c]].all())
    assert int(around.sum()) < 60
    shift = moved_as_one((folded - mean)[None], flipped, triangles)
    assert not bool(flipped_triangles(mean + shift, mean[None], triangles)[0, triangle])


def test_a_torn_scan_leaves_no_fold(model, mean, rng):
    """Steps of several mm across the face, as between badly stitched views."""
    points, valid = scan_grid(_posed(mean), model.topology.triangles, rng)
    points[..., 2] += 5 * ((points[..., 0] / 12).floor() % 2) * valid
    answer = deform(model, _fit(model), resample_grid(points, valid), _nothing(), _nothing())
    moved = answer.mesh[0]
    assert answer.flipped.tolist() == [0]
    assert not bool(flipped_triangles(moved, mean, model.topology.triangles).any())
    assert float((moved - mean).norm(dim=-1).max()) > 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"lengths": (3.0,)}, "one entry a round"),
        ({"lengths": (3.0, 0.0), "distances": (3.0, 3.0)}, "lengths"),
        ({"anchor": float("nan")}, "anchor"),
        ({"normal_degrees": 95}, "normal_degrees"),
        ({"fold_factor": 0.5}, "fold_factor"),
    ],
)
def test_specs_say_what_they_want(wrong, says):
    with pytest.raises(ValueError, match=says):
        DeformSpec(**wrong)


def test_wrong_input_is_refused(model, mean):
    scans = resample_mesh(_posed(mean), model.topology.triangles, spacing=4.0)
    for points in ((_nothing(), _nothing(2)), (_nothing(2), _nothing())):
        with pytest.raises(ValueError, match=r"lifted|labelled"):
            deform(model, _fit(model), scans, *points)
    with pytest.raises(ValueError, match="topology"):
        deform(model.restrict(torch.arange(50)), _fit(model), scans, _nothing(), _nothing())
