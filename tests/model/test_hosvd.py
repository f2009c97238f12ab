"""HOSVD: exact at full rank, numpy's truncation otherwise, orthonormal rows, one sign convention."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.model import hosvd as module
from facerecon_torch.model.hosvd import hosvd
from tests.reference.model_loops import hosvd_approximation


@pytest.fixture
def tensor(rng, device, dtype):
    """12 people x 7 expressions of 20 points: a mean face, and factors that decay as those of faces do."""
    people = torch.randn(60, 12, 7, generator=rng, dtype=torch.float64)
    decay = torch.linspace(0, -3, 12)[:, None].exp() * torch.linspace(0, -2, 7).exp()
    mean = 40 * torch.randn(60, 1, 1, generator=rng, dtype=torch.float64)
    return (mean + 5 * decay * people).to(device, dtype)


def rebuilt(answer):
    return torch.einsum("rie,ni,ke->rnk", answer.core, answer.identity_rows, answer.expression_rows)


def test_full_rank_reproduces_the_tensor(tensor, tolerance):
    assert_close(rebuilt(hosvd(tensor, 12, 7)), tensor, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize(("identity_rank", "expression_rank"), [(5, 3), (12, 2), (1, 1)])
def test_truncation_equals_numpy(tensor, identity_rank, expression_rank, tolerance):
    answer = hosvd(tensor, identity_rank, expression_rank)
    assert answer.core.shape == (60, identity_rank, expression_rank)
    expected = hosvd_approximation(tensor.double().cpu().numpy(), identity_rank, expression_rank)
    assert_close(rebuilt(answer).double().cpu(), torch.from_numpy(expected), rtol=tolerance, atol=10 * tolerance)


def test_rows_are_orthonormal_and_singular_values_are_numpys(tensor, tolerance):
    answer = hosvd(tensor, 5, 3)
    for rows in (answer.identity_rows, answer.expression_rows):
        eye = torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
        assert_close(rows.mT @ rows, eye, rtol=0, atol=tolerance)
    unfolding = tensor.double().cpu().numpy().transpose(1, 0, 2).reshape(12, -1)
    values = torch.from_numpy(np.linalg.svd(unfolding, compute_uv=False))
    assert_close(answer.identity_singular_values.double().cpu(), values, rtol=tolerance, atol=tolerance)
    assert answer.expression_singular_values.shape == (7,)


def test_largest_entry_of_every_column_is_positive(tensor):
    answer = hosvd(tensor, 12, 7)
    for rows in (answer.identity_rows, answer.expression_rows):
        assert bool((rows.gather(0, rows.abs().argmax(dim=0, keepdim=True)) > 0).all())
    mirrored = hosvd(-tensor, 12, 7)
    assert_close(mirrored.identity_rows, answer.identity_rows)
    assert_close(mirrored.core, -answer.core)


def test_chunks_do_not_change_the_answer(tensor, tolerance, monkeypatch):
    whole = hosvd(tensor, 5, 3)
    monkeypatch.setattr(module, "_CHUNK_VALUES", 7 * 12 * 7 + 1)  # 7 rows at a time: 60 rows do not divide
    parts = hosvd(tensor, 5, 3)
    assert_close(parts.core, whole.core, rtol=tolerance, atol=tolerance)
    assert_close(parts.identity_rows, whole.identity_rows, rtol=tolerance, atol=tolerance)


def test_strided_tensor_is_the_same_tensor(tensor, tolerance):
    strided = tensor.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert_close(hosvd(strided, 5, 3).core, hosvd(tensor, 5, 3).core, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("ranks", [(0, 3), (13, 3), (5, 8)])
def test_refuses_ranks_outside_the_tensor(ranks):
    with pytest.raises(ValueError, match=r"_rank must lie in \[1, "):
        hosvd(torch.ones(6, 12, 7), *ranks)


@pytest.mark.parametrize("tensor", [torch.ones(6, 12), torch.ones(1, 6, 12, 7), torch.ones(6, 12, 7).long()], ids=str)
def test_refuses_what_is_not_a_data_tensor(tensor):
    with pytest.raises(ValueError, match="tensor must"):
        hosvd(tensor, 2, 2)
