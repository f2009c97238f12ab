"""Exact leave-one-group-out predictions of a ridge fit for a whole path of penalties from one factorisation.

With e the in-sample residuals of a fit with penalty lambda and H its hat matrix (mean included), leaving group g out
gives the residuals r_g = (I - H_gg)^-1 e_g on that group, with the penalty and the feature scales held fixed:

    dual    r_g = (lambda B_gg - 11'/n)^-1 (lambda a_g),   B = (K + lambda I)^-1,  a = B Y
    primal  r_g = (I - X_g P X_g' - 11'/n)^-1 e_g,         P = (X'X + lambda I)^-1

X, Y and K are centred and 11'/n is there only where the fit has a bias. Everything is float64.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.regression.gram import Moments
from facerecon_torch.regression.streaming import Features, group_chunks

__all__ = ["leave_group_out_dual", "leave_group_out_primal", "number_groups"]

BUCKET_NUMBERS = 2**23  # float64 numbers of the factor that one batch of groups gathers: 64 MiB


def number_groups(groups: Int[Tensor, "n"]) -> tuple[Int[Tensor, "n"], Int[Tensor, "groups"]]:
    """(group number of each sample from 0, size of each group); ValueError where there are fewer than 2 groups."""
    _, index, counts = torch.unique(groups, return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise ValueError(f"leaving one group out needs at least 2 groups; got {len(counts)}")
    return index, counts


def equal_size_batches(index: Int[Tensor, "n"], width: int) -> list[Int[Tensor, "g size"]]:
    """The sample numbers of groups of one size as the rows of one matrix; a loop over sizes, not over groups."""
    order = torch.argsort(index, stable=True)
    _, counts = torch.unique(index, return_counts=True)
    starts = torch.cumsum(counts, 0) - counts
    batches: list[Tensor] = []
    for size in torch.unique(counts).tolist():
        members = order[starts[counts == size][:, None] + torch.arange(size, device=order.device)]
        batches.extend(torch.split(members, max(BUCKET_NUMBERS // (size * max(width, size)), 1)))
    return batches


def _factorised(gram: Float[Tensor, "m m"]) -> tuple[Float[Tensor, "m"], Float[Tensor, "m m"]]:
    """Eigenvalues and eigenvectors; values at the level of rounding are those of directions without any spread."""
    values, vectors = torch.linalg.eigh(gram)
    noise = torch.finfo(gram.dtype).eps * len(gram) * values[-1]
    return torch.where(values > noise, values, 0.0), vectors


def leave_group_out_dual(
    gram: Float[Tensor, "n n"],
    y: Float[Tensor, "n t"],
    groups: Int[Tensor, "n"],
    penalties: Sequence[float],
    *,
    bias: bool,
) -> Float[Tensor, "p n t"]:
    """Predictions of every group by the fit without it, one table per penalty (inf: the mean of the others, or 0).

    `gram` is centred where the fit has a bias; `y` is not, and sets the dtype of the result.
    """
    index, _ = number_groups(groups)
    targets = y.to(torch.float64)
    centred = targets - targets.mean(0) if bias else targets
    values, vectors = _factorised(gram)
    rotated = vectors.mT @ centred
    predictions = y.new_empty(len(penalties), *y.shape)
    offset = 1.0 / len(y) if bias else 0.0
    for rows in equal_size_batches(index, len(y)):
        basis = vectors[rows]
        for number, penalty in enumerate(penalties):
            keep = 1.0 / (values / penalty + 1.0)  # lambda / (value + lambda), also at lambda = inf
            kept = basis * keep
            residuals = torch.linalg.solve(kept @ basis.mT - offset, kept @ rotated)
            predictions[number, rows] = (targets[rows] - residuals).to(y.dtype)
    return predictions


def leave_group_out_primal(
    features: Features,
    moments: Moments,
    y: Float[Tensor, "n t"],
    groups: Int[Tensor, "n"],
    penalties: Sequence[float],
    *,
    scales: Float[Tensor, "d"],
    bias: bool,
) -> Float[Tensor, "p n t"]:
    """As `leave_group_out_dual`, from X'X; the rows of the features multiplied by `scales` are read once more."""
    index, counts = number_groups(groups)
    targets = y.to(torch.float64)
    values, vectors = _factorised(moments.gram * scales[:, None] * scales)
    rotated = vectors.mT @ (moments.cross * scales[:, None])
    turn = scales[:, None] * vectors
    predictions = y.new_empty(len(penalties), *y.shape)
    offset = 1.0 / len(y) if bias else 0.0
    for samples, chunk in group_chunks(features, index, counts):
        turned = (chunk.to(torch.float64) - moments.feature_mean) @ turn
        for rows in equal_size_batches(index[samples], turned.shape[1]):
            basis, truth = turned[rows], targets[samples[rows]]
            identity = torch.eye(rows.shape[1], dtype=basis.dtype, device=basis.device)
            for number, penalty in enumerate(penalties):
                shrunk = basis / (values + penalty)
                errors = truth - moments.target_mean - shrunk @ rotated
                residuals = torch.linalg.solve(identity - shrunk @ basis.mT - offset, errors)
                predictions[number, samples[rows]] = (truth - residuals).to(y.dtype)
    return predictions
