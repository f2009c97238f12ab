import math

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.geometry.rotation import axis_angle_to_matrix
from facerecon_torch.metrics.vertex_error import ALIGNMENTS, vertex_errors


def _faces(rng, shape=(4,)):
    truth = 60 * torch.randn(*shape, 30, 3, generator=rng, dtype=torch.float64)
    return truth + 2 * torch.randn(*shape, 30, 3, generator=rng, dtype=torch.float64), truth


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_equations_14_and_15_by_hand(shape, rng, device, dtype, tolerance):
    estimate, truth = _faces(rng, shape)
    error = vertex_errors(estimate.to(device, dtype), truth.to(device, dtype))
    assert error.mae.dtype == dtype
    flat = zip(estimate.reshape(-1, 30, 3), truth.reshape(-1, 30, 3), error.mae.reshape(-1), error.rmse_z.reshape(-1))
    for a, b, mae, rmse in flat:
        distances = [math.dist(p, q) for p, q in zip(a.tolist(), b.tolist(), strict=True)]
        depth = [(p[2] - q[2]) ** 2 for p, q in zip(a.tolist(), b.tolist(), strict=True)]
        assert mae.item() == pytest.approx(sum(distances) / 30, rel=tolerance)
        assert rmse.item() == pytest.approx(math.sqrt(sum(depth) / 30), rel=tolerance)


@pytest.mark.parametrize(
    ("motion", "forgiving"),
    [
        ("shift", {"translation", "rigid", "similarity"}),
        ("turn", {"rigid", "similarity"}),
        ("grow", {"similarity"}),
    ],
)
@pytest.mark.parametrize("align", ALIGNMENTS)
def test_an_alignment_forgives_its_own_motions_and_no_others(motion, forgiving, align, rng):
    _, truth = _faces(rng)
    moved = {
        "shift": truth + 5,
        "turn": truth @ axis_angle_to_matrix(torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)).mT,
        "grow": 1.1 * truth,
    }[motion]
    error = vertex_errors(moved, truth, align)
    if align in forgiving:
        assert error.mae.max() < 1e-9
        assert error.rmse_z.max() < 1e-9
    else:
        assert error.mae.min() > 0.5


def test_size_error_is_signed_and_unmoved_by_the_alignment(rng):
    _, truth = _faces(rng)
    factor = torch.tensor([0.9, 1.0, 1.1, 2.0], dtype=torch.float64)
    for align in ALIGNMENTS:
        error = vertex_errors(factor[:, None, None] * truth + 3, truth, align)
        assert_close(error.size_error_percent, 100 * (factor - 1))


def test_the_alignment_sees_only_the_rows_that_are_evaluated(rng):
    estimate, truth = _faces(rng)
    rows = torch.tensor([3, 4, 8, 11, 20, 29])
    spoilt = estimate.clone()
    spoilt[:, :3] += 1000
    for align in ALIGNMENTS:
        expected = vertex_errors(estimate[:, rows], truth[:, rows], align)
        found = vertex_errors(spoilt, truth, align, rows=rows)
        assert_close(found.mae, expected.mae)
        assert_close(found.rmse_z, expected.rmse_z)
        assert_close(found.size_error_percent, expected.size_error_percent)


def test_more_freedom_never_fits_worse_in_squared_distance(rng):
    estimate, truth = _faces(rng)
    single = vertex_errors(estimate + 4, truth, "none").mae
    for align in ALIGNMENTS[1:]:
        freer = vertex_errors(estimate + 4, truth, align).mae
        assert (freer < single).all()
        single = freer + 0.02  # least squares does not minimise the mean distance, only nearly so


def test_bad_arguments_are_named():
    face = torch.zeros(1, 4, 3)
    with pytest.raises(ValueError, match="'procrustes'"):
        vertex_errors(face, face, "procrustes")
    with pytest.raises(ValueError, match="at least one vertex"):
        vertex_errors(face, face, rows=torch.zeros(0, dtype=torch.long))
