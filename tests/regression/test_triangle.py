"""A symmetric matrix in one triangle, its factors in the other: both are what they should be, and neither harms it."""

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.regression.triangle import Triangle


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr("facerecon_torch.regression.triangle.TILE", 4)


@pytest.fixture(params=[3, 8, 23])
def problem(request, rng, device):
    d = request.param
    x = torch.randn(40, d, generator=rng, dtype=torch.float64).to(device)
    gram = x.mT @ x
    gram = gram.tril() + gram.tril(-1).mT  # symmetric to the last bit, which a product is on some processors only
    room = gram.tril() + torch.full_like(gram, torch.nan).triu(1)  # nothing may read what is not there yet
    scales = torch.rand(d, generator=rng, dtype=torch.float64).to(device) + 0.5
    return gram, Triangle(room), scales


def test_factor_of_one_penalty_after_the_other(problem, rng):
    gram, triangle, scales = problem
    right = torch.randn(len(scales), 2, generator=rng, dtype=torch.float64).to(gram.device)
    for penalty in (0.1, 7.0, 0.1):
        assert triangle.factorise(scales, penalty)
        upper, wanted = (
            triangle.room.triu(),
            gram * scales[:, None] * scales + penalty * torch.eye(len(scales)).to(gram),
        )
        assert_close(upper.mT @ upper, wanted, rtol=1e-12, atol=1e-12)
        assert_close(upper.mT @ triangle.forward(right), right, rtol=1e-11, atol=1e-11)
        assert_close(upper @ triangle.backward(right), right, rtol=1e-11, atol=1e-11)
        rows = right.mT.clone()
        assert_close(triangle.turn_(rows) @ upper, right.mT, rtol=1e-11, atol=1e-11)
        assert_close(triangle.full(), gram, rtol=0, atol=0)


def test_rows_keep_their_dtype_and_memory(problem):
    gram, triangle, scales = problem
    triangle.factorise(scales, 1.0)
    rows = torch.ones(5, len(scales), device=gram.device)
    turned = triangle.turn_(rows)
    assert turned.data_ptr() == rows.data_ptr()
    exact = triangle.turn_(torch.ones(5, len(scales), device=gram.device, dtype=torch.float64))
    assert_close(turned.double(), exact, rtol=1e-5, atol=1e-5)


def test_eigenvectors_between_factors(problem):
    gram, triangle, scales = problem
    triangle.factorise(scales, 1.0)
    eigen = triangle.eigen(scales)
    wanted = gram * scales[:, None] * scales
    assert_close(eigen.vectors * eigen.values @ eigen.vectors.mT, wanted, rtol=1e-11, atol=1e-11)
    assert_close(triangle.full(), gram, rtol=0, atol=0)
    assert triangle.factorise(scales, 1.0)  # the one before is no longer there
    assert_close(triangle.room.triu().mT @ triangle.room.triu(), wanted + torch.eye(len(scales)).to(gram))


def test_what_is_not_positive_definite_says_so(rng):
    x = torch.randn(5, 11, generator=rng, dtype=torch.float64)
    triangle = Triangle(x.mT @ x)
    ones = torch.ones(11, dtype=torch.float64)
    triangle.diagonal -= 0.1
    assert not triangle.factorise(ones, 0.05)
    assert triangle.factorise(ones, 0.2)
