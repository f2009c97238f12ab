"""The error of estimates of beta: what was put in is found, and few faces give the prior."""

import torch
from torch.testing import assert_close

from facerecon_torch.model.expression_error import fit_expression_error


def test_offset_gain_covariance_and_penalty_are_recovered(rng):
    draw = {"generator": rng, "dtype": torch.float64}
    truth = torch.randn(50_000, 3, **draw)
    gain = torch.diag(torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64)) + 0.05 * torch.randn(3, 3, **draw)
    factor = 0.2 * torch.randn(3, 3, **draw)
    offset = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
    estimate = offset + truth @ gain + torch.randn(50_000, 3, **draw) @ factor.mT
    directions = torch.randn(5, 3, **draw)
    error = fit_expression_error(estimate, truth, directions, torch.ones(3))
    assert_close(error.offset, offset, rtol=0, atol=0.01)
    assert_close(error.gain, gain, rtol=0, atol=0.01)
    assert_close(error.covariance, factor @ factor.mT, rtol=0, atol=0.01)
    evidence = (
        (estimate - error.offset - truth @ error.gain) @ error.covariance.inverse() @ (directions @ error.gain).mT
    )
    share = (evidence.amax(dim=1) > error.penalty).double().mean()
    assert abs(float(share) - 0.5) < 0.01
    root = error.whitening()
    assert_close(root.mT @ error.covariance @ root, torch.eye(3, dtype=torch.float64))


def test_few_faces_give_the_prior():
    variance = torch.tensor([0.5, 2.0, 1.0])
    estimate = truth = torch.zeros(1, 3)
    error = fit_expression_error(estimate, truth, torch.eye(3), variance)
    assert_close(error.gain, torch.eye(3, dtype=torch.float64))
    assert_close(error.covariance, torch.diag(variance.double()) * 3 / 4)


def test_a_model_without_names(rng):
    truth = torch.randn(20, 3, generator=rng)
    assert float(fit_expression_error(truth, truth, torch.zeros(0, 3), torch.ones(3)).penalty) == 0
