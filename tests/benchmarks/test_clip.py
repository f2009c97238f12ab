"""Jitter and lag of curves that are known."""

import math

import pytest
import torch

from benchmarks.clip import jitter, lag


def waves(shift):
    time = torch.arange(60).double()
    return torch.stack([torch.sin((time - shift) / 6), torch.cos((time - shift) / 9)], dim=-1)


@pytest.mark.parametrize("shift", [-1.5, 0.0, 0.7, 2.0])
def test_the_lag_is_the_shift(shift):
    assert lag(3 * waves(shift) + 1, waves(0.0)) == pytest.approx(shift, abs=0.11)


def test_jitter_is_that_of_second_differences():
    saw = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0]).double()[:, None]
    assert jitter(saw) == 2.0
    assert jitter(torch.arange(9).double()[:, None]) == 0.0


def test_no_curve_has_no_lag():
    empty = torch.zeros(60, 0, dtype=torch.float64)
    assert math.isnan(lag(empty, empty))
