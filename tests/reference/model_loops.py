"""Face models and HOSVD spelled out, slowly: one sum per formula, numpy's own SVD."""

import numpy as np
from torch import Tensor


def bilinear_vertices(core: Tensor, identity: Tensor, expression: Tensor) -> Tensor:
    """S = Cr x2 alpha x3 beta, one term at a time."""
    batch = identity.shape[:-1]
    total = core.new_zeros(*batch, *core.shape[:2])
    for i in range(core.shape[2]):
        for e in range(core.shape[3]):
            weight = identity[..., i] * expression[..., e]
            total = total + weight[..., None, None] * core[:, :, i, e]
    return total


def linear_vertices(
    mean: Tensor, identity_basis: Tensor, expression_basis: Tensor, identity: Tensor, expression: Tensor
) -> Tensor:
    """S = mean + A_id alpha + A_exp beta, one component at a time."""
    total = mean.expand(*identity.shape[:-1], *mean.shape)
    for i in range(identity.shape[-1]):
        total = total + identity[..., i, None, None] * identity_basis[:, :, i]
    for e in range(expression.shape[-1]):
        total = total + expression[..., e, None, None] * expression_basis[:, :, e]
    return total


def hosvd_approximation(tensor: np.ndarray, identity_rank: int, expression_rank: int) -> np.ndarray:
    """The tensor projected on the leading left singular vectors of its identity and expression unfoldings."""
    answer = tensor
    for axis, rank in ((1, identity_rank), (2, expression_rank)):
        unfolding = np.moveaxis(tensor, axis, 0).reshape(tensor.shape[axis], -1)
        vectors = np.linalg.svd(unfolding, full_matrices=False)[0][:, :rank]
        answer = np.moveaxis(np.tensordot(vectors @ vectors.T, answer, axes=(1, axis)), 0, axis)
    return answer


def gauge_statistics(identity_rows: np.ndarray, expression_rows: np.ndarray) -> dict[str, np.ndarray]:
    """Mean and variance over all pairs of people and expressions, each pair brought into the gauge by itself."""
    direction = expression_rows.mean(axis=0)
    alphas, betas = [], []
    for person in identity_rows:
        for face in expression_rows:
            component = face @ direction / (direction @ direction)
            alphas.append(component * person)
            betas.append(face / component)
    return {
        "identity_mean": np.mean(alphas, axis=0),
        "identity_variance": np.var(alphas, axis=0),
        "expression_mean": np.mean(betas, axis=0),
        "expression_variance": np.var(betas, axis=0),
    }
