"""Landmarks, contour lines and vertex sets that a foreign mesh lacks are found where they truly are."""

import pytest
import torch

from facerecon_torch.errors import ModelFileError
from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER
from facerecon_torch.model.default_face import load_default_face
from facerecon_torch.registration.surface_parts import make_surface, mesh_parts
from facerecon_torch.registration.topology.checks import TopologyLimits, misplaced
from facerecon_torch.registration.topology.complete import TopologySpec, derive_topology
from facerecon_torch.registration.topology.fit import TopologyFitSpec
from tests.registration.foreign_face import make_foreign_face

QUICK = TopologySpec(fit=TopologyFitSpec(rounds=3, stiffness=(10.0, 1.0)))
KNOWN = [8, 30, 36, 39, 42, 45, *range(48, 60), 61, 62, 63, 65, 66, 67]  # what the BFM 2017 lists hold


@pytest.fixture(scope="module")
def default():
    return load_default_face().double()


@pytest.fixture(scope="module")
def foreign():
    return make_foreign_face()


@pytest.fixture(scope="module")
def derived(foreign, default):
    return derive_topology(foreign.vertices, foreign.triangles, None, foreign.known(KNOWN), default=default)


def _edge(foreign):
    return make_surface(foreign.vertices, foreign.triangles).edge_length


def _line_distance(points, line):
    step = line[1:] - line[:-1]
    share = ((points[:, None] - line[:-1]) * step).sum(-1) / step.square().sum(-1)
    nearest = line[:-1] + share.clamp(0, 1)[..., None] * step
    return (nearest - points[:, None]).norm(dim=-1).amin(1)


def _errors(derived, foreign):
    """Distances of the derived landmarks from the true places, and of the nearest vertices: no choice is nearer."""
    truth = foreign.truth[foreign.topology.landmark_vertices]
    found = foreign.vertices[derived.topology.landmark_vertices]
    return (found - truth).norm(dim=-1), torch.cdist(truth, foreign.vertices).amin(1)


def test_derived_landmarks_lie_near_the_truth(derived, foreign):
    error, best = _errors(derived, foreign)
    missing = torch.tensor([point not in KNOWN for point in IBUG_OF_PAPER])
    assert int(missing.sum()) == 42
    contour = torch.arange(66) >= 49
    assert (error - best)[missing & ~contour].max() < 3.0
    assert error[missing].mean() < _edge(foreign)


def test_derived_landmarks_of_the_contour_lie_near_the_truth(derived, foreign):
    """Its back stands on the bare edge of the jaw, where little holds a registration and vertices are far apart."""
    error, best = _errors(derived, foreign)
    assert (error - best)[49:].max() < 3.5


def test_known_landmarks_stay_where_they_were(derived, foreign):
    known = foreign.known(KNOWN)
    rows = [IBUG_OF_PAPER.index(point) for point in KNOWN]
    assert derived.topology.landmark_vertices[rows].tolist() == [known[point] for point in KNOWN]
    assert set(derived.disagreement) == set(KNOWN)
    assert max(derived.disagreement.values()) < 3.0


@pytest.mark.xfail(
    strict=True, reason="vertices of a line of this person, far apart at the jaw, do not stand in order along its chord"
)
def test_contour_lines_run_along_the_true_ones_from_back_to_front(derived, foreign):
    for row, true_row in zip(derived.topology.contour_lines, foreign.topology.contour_lines):
        line, truth = foreign.vertices[row[row >= 0]], foreign.truth[true_row[true_row >= 0]]
        assert _line_distance(line, truth).max() < 5.0
        assert _line_distance(truth[2:-1], line).max() < 4.0
        along = line @ torch.nn.functional.normalize(truth[-1] - truth[0], dim=0)
        assert (along[1:] > along[:-1] - 1.0).all()


@pytest.mark.parametrize("name", ["centre_vertices", "whole_vertices"])
def test_vertex_sets_overlap_with_the_true_ones(name, derived, foreign):
    members = torch.zeros(len(foreign.truth), dtype=torch.bool)
    members[getattr(foreign.topology, name)] = True
    nearest = torch.cdist(foreign.vertices, foreign.truth).argmin(1)
    truth = members[nearest]
    found = torch.zeros_like(truth)
    found[getattr(derived.topology, name)] = True
    assert (found & truth).sum() / (found | truth).sum() > 0.9


def test_a_good_mesh_leaves_nothing_uncertain(derived):
    assert derived.uncertain == ()
    assert derived.residual < 0.7
    kinds = [item.kind for item in derived.items]
    assert [kinds.count(kind) for kind in ("known landmark", "landmark", "line", "set")] == [24, 42, 17, 2]


def test_without_texture_coordinates_the_mesh_is_mapped_flat(derived, foreign):
    uv = derived.topology.uv
    assert (float(uv.min()), float(uv.max())) == (0.0, 1.0)
    spread = foreign.vertices[:, :2] - foreign.vertices[:, :2].amin(0)
    torch.testing.assert_close(uv.double() * spread.max(), spread, atol=1e-4, rtol=0)


def test_what_a_mesh_has_lost_is_uncertain_with_a_reason(foreign, default):
    jaw = foreign.truth[foreign.topology.landmark_vertices[-17:]]
    cheek = (foreign.vertices - jaw[3]).norm(dim=-1) < 35
    kept = foreign.triangles[~cheek[foreign.triangles].any(-1)]
    known = foreign.known([30, 36, 39, 42, 45, 48, 54, 57])
    spec = TopologySpec(fit=TopologyFitSpec(rounds=12, stiffness=(10.0, 1.0)))
    found = derive_topology(foreign.vertices, kept, None, known, spec=spec, default=default)
    doubts = {(item.kind, item.index): item.reason for item in found.uncertain}
    assert "the mesh is" in doubts["landmark", 49 + 3]
    assert "of it" in doubts["line", 3]
    assert not any(index > 49 + 8 for kind, index in doubts if kind == "landmark")


def _all_known(foreign):
    return foreign.known([point for point in IBUG_OF_PAPER if point >= 17])


def _moved_along(foreign, vertex, direction, length):
    """The vertex nearest to a place `length` mm from another."""
    goal = foreign.vertices[vertex] + length * torch.tensor(direction, dtype=torch.float64)
    return int((foreign.vertices - goal).norm(dim=-1).argmin())


def test_one_wrong_entry_of_a_list_is_placed_by_the_registration(foreign, default):
    known = _all_known(foreign)
    truth = foreign.vertices[known[33]]
    wrong = known | {33: _moved_along(foreign, known[33], [1.0, 0.0, 0.0], 22.0)}
    spec = TopologySpec(fit=TopologyFitSpec(rounds=12, stiffness=(10.0, 1.0)))
    refused = derive_topology(foreign.vertices, foreign.triangles, None, wrong, spec=spec, default=default)
    assert ("known landmark", IBUG_OF_PAPER.index(33)) in {(item.kind, item.index) for item in refused.uncertain}
    found = derive_topology(foreign.vertices, foreign.triangles, None, wrong, listed=wrong, spec=spec, default=default)
    assert set(found.replaced) == {33}
    assert found.replaced[33] > 12.0
    assert found.uncertain == ()
    placed = foreign.vertices[found.topology.landmark_vertices[IBUG_OF_PAPER.index(33)]]
    assert float((placed - truth).norm()) < 3.5


def test_a_list_of_another_mesh_is_not_mended(foreign, default):
    known = _all_known(foreign)
    wrong = known | {p: _moved_along(foreign, known[p], [0.0, -1.0, 0.0], 30.0) for p in (17, 19, 21, 22, 24, 26, 33)}
    found = derive_topology(foreign.vertices, foreign.triangles, None, wrong, listed=wrong, spec=QUICK, default=default)
    assert found.replaced == {}
    assert found.uncertain != ()


def test_landmarks_of_the_contour_are_among_the_vertices_that_the_model_names(foreign, default):
    contour = foreign.known([point for point in range(17) if point != 8])
    rim = torch.tensor(sorted(contour.values()))
    known = _all_known(foreign) | foreign.known([8])
    given = {"contour_rim": rim}
    found = derive_topology(foreign.vertices, foreign.triangles, None, known, given=given, spec=QUICK, default=default)
    placed = dict(zip(IBUG_OF_PAPER[49:], found.topology.landmark_vertices[49:].tolist()))
    assert placed == contour | foreign.known([8])


def test_tables_that_a_model_brings_are_kept_and_lines_turned_from_back_to_front(derived, foreign, default):
    made = derived.topology
    used = made.contour_lines >= 0
    reversed_lines = torch.stack([torch.cat([row[ok].flip(0), row[~ok]]) for row, ok in zip(made.contour_lines, used)])
    given = {
        "inner_landmarks": made.landmark_vertices[:49],
        "contour_lines": reversed_lines,
        "whole_vertices": made.whole_vertices[::2],
    }
    found = derive_topology(foreign.vertices, foreign.triangles, None, {}, given=given, spec=QUICK, default=default)
    assert torch.equal(found.topology.landmark_vertices[:49], made.landmark_vertices[:49])
    assert torch.equal(found.topology.contour_lines, made.contour_lines)
    assert torch.equal(found.topology.whole_vertices, made.whole_vertices[::2])
    assert {item.kind for item in found.items} == {"known landmark", "landmark", "known line", "set", "known set"}
    assert found.uncertain == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, t, k: (v, t, {30: k[30], 36: k[36]}), "at least 4 known inner landmarks .* got 2"),
        (lambda v, t, k: (v, t, {30: k[30], 36: k[36], 39: k[36], 42: k[36]}), "spread over the face"),
        (lambda v, t, k: (v, t.flip(1), k), "counter-clockwise"),
        (lambda v, t, k: (3 * v, t, k), "0.6 to 1.6 times as large"),
        (lambda v, t, k: (v * v.new_tensor([-1, -1, 1]), t, k), "turned by 1[78][0-9] degrees"),
    ],
)
def test_what_cannot_be_registered_is_refused(change, message, foreign, default):
    vertices, triangles, known = change(
        foreign.vertices, foreign.triangles, foreign.known([30, 36, 39, 42, 45, 48, 54])
    )
    with pytest.raises(ModelFileError, match=message):
        derive_topology(vertices, triangles, None, known, spec=QUICK, default=default)


def test_a_known_vertex_outside_the_mesh_is_a_wrong_call(foreign, default):
    with pytest.raises(ValueError, match="known must map iBUG points"):
        derive_topology(foreign.vertices, foreign.triangles, None, {30: 10**6}, default=default)


def test_exchanged_sides_order_and_symmetry_are_seen(default):
    topology = default.topology
    points = default.vertices(default.identity_mean, default.expression_mean)[topology.landmark_vertices]
    limits = TopologyLimits()
    assert misplaced(points, set(range(66)), limits) == {}
    mirrored = points * points.new_tensor([-1.0, 1.0, 1.0])
    assert sum("wrong side" in reason for reason in misplaced(mirrored, set(), limits).values()) > 50
    brow = points.clone()
    brow[2, 1] -= 40
    assert "below the eyes" in misplaced(brow, set(), limits)[2]
    askew = points.clone()
    askew[20] += 12 * torch.tensor([0.0, 0.0, 1.0])
    assert "mirror image" in misplaced(askew, {20}, limits)[20]
    assert misplaced(askew, set(), limits) == {}


def test_a_mesh_cut_open_along_a_seam_is_one_part_with_a_rim_outside_only():
    line = torch.arange(4, dtype=torch.float64)
    left = torch.stack([*torch.meshgrid(line, line, indexing="ij"), torch.zeros(4, 4)], -1).flatten(0, 1)
    vertices = torch.cat([left, left + torch.tensor([3.0, 0, 0])])
    corner = torch.tensor([[r * 4 + c, (r + 1) * 4 + c, (r + 1) * 4 + c + 1] for r in range(3) for c in range(3)])
    other = torch.tensor([[r * 4 + c, (r + 1) * 4 + c + 1, r * 4 + c + 1] for r in range(3) for c in range(3)])
    triangles = torch.cat([corner, other, corner + 16, other + 16])
    assert mesh_parts(vertices, triangles).unique().numel() == 1
    points = torch.tensor([[3.0, 1.5, 1.0], [6.0, 1.5, 1.0]], dtype=torch.float64)
    normals = torch.tensor([[0.0, 0, 1]], dtype=torch.float64).expand(2, 3)
    weights = make_surface(vertices, triangles).nearest(points, normals, gate=5.0).weights
    assert weights[0] > 0.9  # on the seam
    assert weights[1] == 0  # on the rim


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(4, marks=pytest.mark.xfail(strict=True, reason="landmark 10 slides 4.2 mm along this chin")),
        5,
        6,
    ],
)
def test_other_people_are_met_as_well(seed, default):
    foreign = make_foreign_face(seed=seed)
    made = derive_topology(foreign.vertices, foreign.triangles, None, foreign.known(KNOWN), default=default)
    error, best = _errors(made, foreign)
    missing = torch.tensor([point not in KNOWN for point in IBUG_OF_PAPER])
    assert (error - best)[missing].max() < 3.5
    assert error[missing].mean() < 2.0
    for row, true_row in zip(made.topology.contour_lines, foreign.topology.contour_lines):
        line, true_line = foreign.vertices[row[row >= 0]], foreign.truth[true_row[true_row >= 0]]
        assert _line_distance(line, true_line).max() < 5.5
    assert made.uncertain == ()
