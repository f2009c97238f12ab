"""Slow twins of the regression package: every group left out by a fit of its own, with plain normal equations."""

import torch
from torch import Tensor


def refit_ridge(x: Tensor, y: Tensor, penalty: float, bias: bool) -> tuple[Tensor, Tensor]:
    """(weight, bias) of min |Y - XW - 1b'|^2 + penalty |W|^2 from an augmented least-squares system by QR."""
    n, d = x.shape
    ones = torch.ones(n, 1, dtype=x.dtype) if bias else torch.zeros(n, 0, dtype=x.dtype)
    top = torch.cat([x, ones], 1)
    bottom = torch.cat([penalty**0.5 * torch.eye(d, dtype=x.dtype), torch.zeros(d, ones.shape[1], dtype=x.dtype)], 1)
    target = torch.cat([y, torch.zeros(d, y.shape[1], dtype=x.dtype)])
    answer = torch.linalg.lstsq(torch.cat([top, bottom]), target, driver="gelsd").solution
    return answer[:d], answer[d] if bias else torch.zeros_like(y[0])


def refit_without_each_group(x: Tensor, y: Tensor, groups: Tensor, penalty: float, bias: bool) -> Tensor:
    """Predictions of each group by the fit to all others, re-centred on them."""
    predictions = torch.zeros_like(y)
    for group in groups.unique().tolist():
        held = groups == group
        weight, offset = refit_ridge(x[~held], y[~held], penalty, bias)
        predictions[held] = x[held] @ weight + offset
    return predictions
