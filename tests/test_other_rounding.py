"""The plugin that rounds as other processors may."""

import pytest
import torch
from torch.testing import assert_close

from tests.other_rounding import OtherRounding


@pytest.fixture
def x(rng):
    return torch.randn(40, 23, generator=rng, dtype=torch.float64)


def test_the_same_call_gives_the_same_bits_and_another_batch_gives_others(x):
    with OtherRounding():
        first, again, part = x @ x.mT, x @ x.mT, x[:7] @ x.mT
    assert torch.equal(first, again)
    assert not torch.equal(first[:7], part)
    assert not torch.equal(first, x @ x.mT)
    assert_close(first, x @ x.mT, rtol=1e-13, atol=1e-13)


def test_a_product_with_itself_is_not_symmetric(x):
    with OtherRounding():
        gram = x.mT @ x
    assert not torch.equal(gram, gram.mT)
    assert_close(gram, gram.mT, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("work", [torch.sum, lambda a: a.cumsum(0), lambda a: torch.linalg.svd(a)[1]])
def test_sums_and_factorisations_move_by_rounding(work, x):
    with OtherRounding():
        moved = work(x)
    assert not torch.equal(moved, work(x))
    assert_close(moved, work(x), rtol=1e-12, atol=1e-12)


def test_what_every_order_gives_alike_stays(x):
    whole = (10 * x).round()
    product = whole @ whole.mT
    with OtherRounding():
        assert torch.equal(whole @ whole.mT, product)
        assert torch.equal(x[:, :2].sum(1), x[:, 0] + x[:, 1])
