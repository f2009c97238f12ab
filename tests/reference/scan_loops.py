"""Slow twins of the registration: closest points by looking at every triangle of a grid, and one step of the fit built
row by row from finite differences."""

import numpy as np


def grid_triangles(valid: np.ndarray) -> np.ndarray:
    """Corners (indices of the flattened grid) of both triangles of every cell that is valid all round."""
    rows, columns = valid.shape
    found = []
    for i in range(rows - 1):
        for j in range(columns - 1):
            if valid[i : i + 2, j : j + 2].all():
                a, b = i * columns + j, (i + 1) * columns + j
                found += [(a, b, b + 1), (a, b + 1, a + 1)]
    return np.array(found)


def closest_on_grid(points: np.ndarray, valid: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Distance of every query from the triangulated grid: the best of all corners, edges and planes."""
    return distances_to_triangles(queries, points.reshape(-1, 3)[grid_triangles(valid)])


def distances_to_triangles(queries: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Distance of every query from the nearest of the triangles [T, 3, 3]."""
    return np.array([_distance_to_all(query, corners) for query in queries])


def _distance_to_all(query: np.ndarray, corners: np.ndarray) -> float:
    a, b, c = (corners[:, k] for k in range(3))
    best = min(_to_segments(query, *pair) for pair in ((a, b), (b, c), (c, a)))
    normal = np.cross(b - a, c - a)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    height = ((query - a) * normal).sum(1)
    foot = query - height[:, None] * normal
    sides = [(np.cross(q - p, foot - p) * normal).sum(1) >= 0 for p, q in ((a, b), (b, c), (c, a))]
    inside = sides[0] & sides[1] & sides[2]
    return min(best, np.abs(height[inside]).min(initial=np.inf))


def _to_segments(query: np.ndarray, start: np.ndarray, end: np.ndarray) -> float:
    edge = end - start
    share = np.clip(((query - start) * edge).sum(1) / (edge**2).sum(1), 0, 1)
    return float(np.linalg.norm(start + share[:, None] * edge - query, axis=1).min())


def fit_step(position, rows, start, priors):
    """One Gauss-Newton step of one scan. `position(x, vertex)` is the posed vertex for the unknowns x (turn about the
    start, shift, beta, alpha); `rows` are (vertex, direction, offset, weight); `start` the unknowns now; `priors` the
    matrix and the mean over all unknowns."""
    matrix, mean = priors
    normal, right = matrix.copy(), matrix @ (mean - start)
    for vertex, direction, offset, weight in rows:
        slope = np.zeros_like(start)
        for k in range(len(start)):
            step = np.zeros_like(start)
            step[k] = 1e-6
            slope[k] = direction @ (position(start + step, vertex) - position(start - step, vertex)) / 2e-6
        normal += weight * np.outer(slope, slope)
        right -= weight * slope * offset
    return np.linalg.solve(normal, right)
