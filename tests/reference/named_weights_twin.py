"""Sparse bounded weights of named expressions one face at a time, by scipy's bounded least squares."""

import numpy as np
from scipy.optimize import lsq_linear


def bounded_slowly(gram, target, upper):
    """argmin w' gram w / 2 - target' w with 0 <= w <= upper, of one target."""
    matrix = np.linalg.cholesky(gram).T
    right = np.linalg.solve(matrix.T, target)
    free = upper > 0
    weights = np.zeros(len(target))
    if free.any():
        # `fit` minimises |matrix w - right|^2, whose cross terms with the fixed zeros vanish.
        weights[free] = lsq_linear(matrix[:, free], right, (0, upper[free]), method="bvls", tol=1e-14).x
    return weights


def named_slowly(directions, target, metric, penalty, *, ridge, least):
    """The weights of `model/named_weights.py` for one face; `target` is beta relative to the neutral face."""
    gram = directions @ metric @ directions.T
    gram = gram + ridge * np.diag(np.diag(gram))
    evidence, ones = directions @ metric @ target, np.ones(len(directions))
    named = bounded_slowly(gram, evidence - penalty, ones) > least
    return bounded_slowly(gram, evidence, ones * named)
