"""g*: pose and weights from scans of people outside the model, alone or in batches, with all or few landmarks."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.geometry.rotation import axis_angle_to_matrix
from facerecon_torch.landmarks.scheme import GROUPS_66, IBUG_OF_PAPER
from facerecon_torch.model.bilinear import BilinearModel
from facerecon_torch.model.default_face import load_default_face
from facerecon_torch.registration.scan.gauss_newton import FitState, Residuals, make_groups, make_priors, take_step
from facerecon_torch.registration.scan.icp import AssociationSpec, associate, fit_scans
from facerecon_torch.registration.scan.initialise import IcpSpec
from facerecon_torch.registration.scan.surface import resample_grid, resample_mesh, stack_scans
from tests.reference.scan_loops import fit_step
from tests.registration.scanning import draw_faces, pose, scan_grid
from tests.tiny_model import tiny_bilinear, tiny_linear

_POSES = ((0.0, 4.0, -3.0), (-6.0, -8.0, 5.0), (3.0, 0.0, 0.0), (45.0, 5.0, -8.0), (-45.0, 0.0, 0.0), (20.0, -5.0, 0.0))
_LABELLED = [IBUG_OF_PAPER.index(i) for i in (17, 21, 22, 26, 36, 39, 42, 45, 30, 31, 35, 48, 51, 54, 57)]


@pytest.fixture(scope="module")
def face():
    return load_default_face()


@pytest.fixture(scope="module")
def scanned(face):
    """(true meshes, scans, labelled, lifted, rotations, translations) of six people who make faces."""
    draw = torch.Generator().manual_seed(5)
    truth = draw_faces(len(_POSES), seed=21)
    motions = [pose(*angles) for angles in _POSES]
    scans, marks = [], []
    for vertices, (rotation, translation) in zip(truth, motions):
        posed = vertices @ rotation.mT + translation
        scans.append(resample_grid(*scan_grid(posed, face.topology.triangles, draw)))
        marks.append(posed[face.topology.landmark_vertices])
    exact = torch.stack(marks)
    labelled = torch.full_like(exact, torch.nan)
    labelled[:, _LABELLED] = exact[:, _LABELLED] + torch.randn(len(exact), len(_LABELLED), 3, generator=draw)
    lifted = exact + 1.3 * torch.randn(exact.shape, generator=draw)
    rotations, translations = (torch.stack(part) for part in zip(*motions))
    return truth, stack_scans(scans), labelled, lifted, rotations, translations


@pytest.fixture(scope="module")
def fit(face, scanned):
    _, scans, labelled, lifted, _, _ = scanned
    return fit_scans(face, scans, labelled, lifted)


def _degrees(a, b):
    cosine = ((a.mT @ b).diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return torch.rad2deg(cosine.clamp(-1, 1).acos())


def _shape_error(face, fit, truth):
    """Mean distance in mm over the face, in the model frame: pose has no part in it."""
    shape = face.vertices(fit.parameters.identity, fit.parameters.expression)
    return (shape - truth)[:, face.topology.whole_vertices].norm(dim=-1).mean(1)


def _scan_distance(face, fit, scans):
    """Median distance in mm of the face's vertices from their partners on the scan."""
    shape = face.vertices(fit.parameters.identity, fit.parameters.expression)
    posed = shape @ fit.rotation.mT + fit.translation[:, None]
    rows = face.topology.whole_vertices
    normals = vertex_normals(posed, face.topology.triangles)[:, rows]
    partners = associate(posed[:, rows], normals, scans, AssociationSpec(distance=15.0, normal_degrees=50.0))
    return torch.where(partners.weight > 0, partners.distance.abs(), torch.nan).nanmedian(1).values


def test_people_outside_the_model_are_met(face, scanned, fit):
    truth, scans, _, _, rotations, translations = scanned
    errors = _shape_error(face, fit, truth)
    assert errors[:3].median() < 1.0  # frontal
    assert errors.max() < 1.5
    degrees = _degrees(fit.rotation, rotations)
    assert degrees.median() < 0.5
    assert degrees.max() < 1.2
    assert (fit.translation - translations).norm(dim=-1).max() < 2.5
    assert _scan_distance(face, fit, scans).max() < 0.3
    assert fit.inlier_share.min() > 0.5
    assert not fit.failed.any()


def test_a_batch_gives_what_each_scan_gives_alone(face, scanned):
    """In float64: in float32 rounding moves a foot over the edge of its cell now and then, which is 0.01 mm later."""
    _, scans, labelled, lifted, _, _ = scanned
    scans = scans[2:5].to(torch.float64)
    labelled, lifted = labelled[2:5], lifted[2:5]
    together = fit_scans(face, scans, labelled, lifted)
    for k in (0, 2):
        part = slice(k, k + 1)
        alone = fit_scans(face, scans[part], labelled[part], lifted[part])
        for name in ("rotation", "translation", "inlier_share"):
            torch.testing.assert_close(getattr(together, name)[part], getattr(alone, name), atol=1e-7, rtol=0)
        torch.testing.assert_close(together.parameters[part].flat, alone.parameters.flat, atol=1e-9, rtol=0)


@pytest.mark.parametrize("few", ["lifted only", "five labelled", "inner lifted"])
def test_few_landmarks_are_enough(face, scanned, fit, few):
    truth, scans, labelled, lifted, rotations, _ = scanned
    nothing = torch.full_like(labelled, torch.nan)
    five = nothing.clone()
    five[:, _LABELLED[4:9]] = labelled[:, _LABELLED[4:9]]
    inner = lifted.clone()
    inner[:, 49:] = torch.nan
    given = {"lifted only": (nothing, lifted), "five labelled": (five, nothing), "inner lifted": (nothing, inner)}[few]
    part = slice(0, 4)
    other = fit_scans(face, scans[part], given[0][part], given[1][part])
    assert not other.failed.any()
    assert _degrees(other.rotation, rotations[part]).max() < 1.5
    assert _shape_error(face, other, truth[part]).median() < 1.2


def test_hidden_landmarks_that_lie_elsewhere_do_no_harm(face, scanned, fit):
    """A hand before one eye: the detector's points there are lifted onto it, 25 mm before the face."""
    _, scans, labelled, lifted, rotations, _ = scanned
    wrong = lifted.clone()
    wrong[:, list(GROUPS_66["eyes"][6:] + GROUPS_66["brows"][5:])] += torch.tensor([6.0, -9.0, 25.0])
    part = slice(0, 3)
    other = fit_scans(face, scans[part], torch.full_like(labelled[part], torch.nan), wrong[part])
    assert _degrees(other.rotation, rotations[part]).max() < 1.2


def test_too_few_landmarks_and_scans_elsewhere_are_flagged_and_finite(face, scanned, fit):
    _, scans, labelled, lifted, _, _ = scanned
    labelled, lifted = labelled[:4].clone(), lifted[:4].clone()
    labelled[1] = torch.nan
    lifted[1, 3:] = torch.nan  # three are left
    labelled[2] += 400.0  # a face where the scan is not
    lifted[2] += 400.0
    other = fit_scans(face, scans[:4], labelled, lifted)
    assert other.failed.tolist() == [False, True, True, False]
    for name in (field.name for field in fields(other)):
        value = getattr(other, name)
        parts = (value.identity, value.expression) if name == "parameters" else (value,)
        assert all(torch.isfinite(part.double()).all() for part in parts), name
    for k in (0, 3):  # what fails does not touch the others
        torch.testing.assert_close(other.rotation[k], fit.rotation[k], atol=2e-3, rtol=0)


def test_a_group_shares_its_identity(face, scanned, fit):
    """Two scans of one person; a third person's scan and a failed one in the same batch."""
    truth, scans, labelled, lifted, rotations, _ = scanned
    draw = torch.Generator().manual_seed(9)
    again = draw_faces(1, seed=21, expressive=False)[0]
    rotation, translation = pose(-30.0)
    posed = again @ rotation.mT + translation
    second = resample_grid(*scan_grid(posed, face.topology.triangles, draw))
    marks = posed[face.topology.landmark_vertices][None]
    nothing = torch.full_like(marks, torch.nan)
    batch = stack_scans([scans[:1], second, scans[1:2], second])
    labels = torch.cat([labelled[:1], nothing, labelled[1:2], nothing])
    points = torch.cat([lifted[:1], marks, lifted[1:2], nothing])
    groups = torch.tensor([7, 7, -2, 7])
    shared = fit_scans(face, batch, labels, points, groups=groups)
    identity = shared.parameters.identity
    assert torch.equal(identity[0], identity[1])
    assert torch.equal(identity[0], identity[3])
    assert (identity[0] - identity[2]).abs().max() > 1e-2
    assert shared.failed.tolist() == [False, False, False, True]
    meshes = torch.stack([truth[0], again])
    shapes = face.vertices(identity[:2], shared.parameters.expression[:2])
    assert (shapes - meshes)[:, face.topology.whole_vertices].norm(dim=-1).mean(1).max() < 1.3
    assert _degrees(shared.rotation[:2], torch.stack([rotations[0], rotation])).max() < 1.0
    torch.testing.assert_close(shared.rotation[2], fit.rotation[1], atol=2e-3, rtol=0)  # a group of its own


@pytest.fixture
def blink(face):
    """(mesh with shut eyes, its scan, its 66 landmarks)."""
    named = [face.expression_rows[face.expression_names.index(f"eyeBlink{side}")] for side in ("Left", "Right")]
    neutral = face.expression_rows[face.expression_names.index("neutral")]
    shut = neutral + 0.8 * (sum(named) - 2 * neutral)
    truth = face.vertices(*face.fix_gauge(face.identity_mean, shut))
    return truth, resample_mesh(truth, face.topology.triangles), truth[face.topology.landmark_vertices][None]


def _lid_error(face, truth, scan, marks, spec):
    fit = fit_scans(face, scan, torch.full_like(marks, torch.nan), marks, spec)
    shape = face.vertices(fit.parameters.identity, fit.parameters.expression)[0]
    lids = face.topology.landmark_vertices[list(GROUPS_66["eyes"])]
    return float((shape @ fit.rotation[0].mT + fit.translation[0] - truth)[lids].norm(dim=-1).mean())


def test_closed_eyes_follow_eyelid_points_that_are_trusted(face, blink):
    truth, scan, marks = blink
    assert _lid_error(face, truth, scan, marks, IcpSpec(eyelid_weight=0.1)) < 0.6
    lids = face.topology.landmark_vertices[list(GROUPS_66["eyes"])]
    start = face.vertices(face.identity_mean, face.expression_mean)
    assert (start - truth)[lids].norm(dim=-1).mean() > 2.0


def test_a_detector_that_sees_closed_eyes_open_does_not_open_them(face, blink):
    truth, scan, marks = blink
    opened = marks.clone()
    opened[:, [20, 21, 26, 27], 1] += 2.5
    opened[:, [23, 24, 29, 30], 1] -= 2.5
    fooled = _lid_error(face, truth, scan, opened, IcpSpec(eyelid_weight=0.1))
    assert _lid_error(face, truth, scan, opened, IcpSpec()) < 0.75 * fooled


@pytest.mark.parametrize("make", [tiny_bilinear, tiny_linear])
def test_other_models_are_fitted_too(make, dtype):
    """A face of the model itself, without noise."""
    model = make().to(dtype)
    draw = torch.Generator().manual_seed(2)
    alpha = model.identity_mean + model.identity_variance.sqrt() * torch.randn(model.n_identity, generator=draw).to(
        dtype
    )
    beta = model.expression_mean + 0.5 * model.expression_variance.sqrt() * torch.randn(
        model.n_expression, generator=draw
    ).to(dtype)
    alpha, beta = model.fix_gauge(alpha, beta)
    rotation, translation = (x.to(dtype) for x in pose(12.0, 5.0, -8.0))
    posed = model.vertices(alpha, beta) @ rotation.mT + translation
    scan = resample_mesh(posed, model.topology.triangles)
    marks = posed[model.topology.landmark_vertices][None]
    spec = IcpSpec(identity_penalty=1e-5, expression_penalty=1e-5)
    fit = fit_scans(model, scan, marks, torch.full_like(marks, torch.nan), spec)
    shape = model.vertices(fit.parameters.identity, fit.parameters.expression)
    found = shape @ fit.rotation.mT + fit.translation[:, None]
    front = posed[:, 2] > posed[:, 2].median()
    assert (found[0] - posed)[front].norm(dim=-1).mean() < 0.7
    assert _degrees(fit.rotation, rotation[None]) < 1.0
    assert fit.rotation.dtype == fit.parameters.identity.dtype == dtype
    fixed = model.fix_gauge(fit.parameters.identity, fit.parameters.expression)
    torch.testing.assert_close(fixed[1], fit.parameters.expression, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("make", [tiny_bilinear, tiny_linear])
def test_a_step_is_that_of_the_twin(make):
    model = make().to(torch.float64)
    draw = torch.Generator().manual_seed(3)
    n_alpha, n_beta = model.n_identity, model.n_expression

    def noise(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    rotation, translation = (x.double() for x in pose(20.0, -7.0, 4.0))
    alpha, beta = model.fix_gauge(
        model.identity_mean + 0.3 * model.identity_variance.sqrt() * noise(n_alpha), model.expression_mean.clone()
    )
    state = FitState(alpha[None], beta[None], rotation[None], translation[None])
    chosen = torch.arange(0, model.n_vertices, 20)
    direction = torch.nn.functional.normalize(noise(1, len(chosen), 3), dim=-1)
    offset, weight = noise(1, len(chosen)), torch.rand(1, len(chosen), generator=draw, dtype=torch.float64)
    priors = make_priors(model, 0.02, 0.03)
    after = take_step(
        model, state, [Residuals(chosen, direction, offset, weight)], priors, make_groups(None, 1, chosen.device)
    )
    posed = model.vertices(alpha, beta) @ rotation.mT + translation
    centre = posed.mean(0)

    def position(x, vertex):
        x = torch.from_numpy(x)
        shape = model.vertices(x[6 + n_beta :], x[6 : 6 + n_beta])[vertex]
        moved = rotation @ shape + translation
        return (axis_angle_to_matrix(x[:3]) @ (moved - centre) + centre + x[3:6]).numpy()

    start = np.concatenate([np.zeros(6), beta.numpy(), alpha.numpy()])
    matrix = torch.block_diag(1e-9 * torch.eye(6, dtype=torch.float64), priors.expression, priors.identity).numpy()
    mean = np.concatenate([np.zeros(6), priors.expression_mean.numpy(), priors.identity_mean.numpy()])
    rows = list(zip(chosen.tolist(), direction[0].numpy(), offset[0].tolist(), weight[0].tolist()))
    step = torch.from_numpy(fit_step(position, rows, start, (matrix, mean)))
    torch.testing.assert_close(after.expression[0] - beta, step[6 : 6 + n_beta], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(after.identity[0] - alpha, step[6 + n_beta :], atol=1e-6, rtol=1e-4)
    turn = axis_angle_to_matrix(step[:3])
    torch.testing.assert_close(after.rotation[0], turn @ rotation, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        after.translation[0], turn @ (translation - centre) + centre + step[3:6], atol=1e-4, rtol=0
    )


def test_what_does_not_fit_together_is_refused(face, scanned):
    _, scans, labelled, lifted, _, _ = scanned
    with pytest.raises(ValueError, match="labelled"):
        fit_scans(face, scans, labelled[:2], lifted)
    with pytest.raises(ValueError, match="groups"):
        fit_scans(face, scans, labelled, lifted, groups=torch.zeros(2, dtype=torch.int64))
    bare = face.restrict(torch.arange(200))
    with pytest.raises(ValueError, match="topology"):
        fit_scans(bare, scans, labelled, lifted)


@pytest.mark.parametrize(
    "change",
    [
        {"distances": ()},
        {"start_scales": (5.0, -1.0)},
        {"identity_penalty": 0.0},
        {"labelled_weight": -0.1},
        {"normal_degrees": 120.0},
        {"coarse_vertices": 50},
        {"fine_rounds": -1},
        {"margin": -3.0},
    ],
)
def test_a_spec_refuses_what_makes_no_sense(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(IcpSpec(), **change)


def test_the_gauge_holds_without_a_fix_and_a_free_model_needs_none(face, fit):
    identity, expression = face.fix_gauge(fit.parameters.identity, fit.parameters.expression)
    torch.testing.assert_close(expression, fit.parameters.expression, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(identity, fit.parameters.identity, atol=1e-4, rtol=1e-4)
    tiny = tiny_bilinear()
    free = BilinearModel(
        tiny.core,
        tiny.identity_rows,
        tiny.expression_rows,
        tiny.topology,
        expression_names=tiny.expression_names,
        gauge="free",
    )
    assert make_priors(tiny, 1.0, 1.0).expression.diagonal().max() > 1e6
    assert torch.equal(make_priors(free, 1.0, 1.0).expression, torch.diag(1.0 / free.expression_variance.double()))
