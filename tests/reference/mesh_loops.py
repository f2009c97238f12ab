"""Slow twins of the mesh operations: plain numpy, every pixel or point against every triangle."""

import numpy as np


def rasterise(points: np.ndarray, triangles: np.ndarray, height: int, width: int) -> tuple[np.ndarray, ...]:
    """Solves each pixel's barycentric system with every triangle and keeps the largest depth."""
    index = np.full((height, width), -1)
    weights = np.zeros((height, width, 3))
    depth = np.zeros((height, width))
    for t, corners in enumerate(points[triangles].astype(float)):
        system = np.vstack([corners[:, :2].T, np.ones(3)])
        if abs(np.linalg.det(system)) < 1e-12:
            continue
        for row in range(height):
            for column in range(width):
                w = np.linalg.solve(system, [column, row, 1.0])
                z = w @ corners[:, 2]
                if w.min() >= 0 and (index[row, column] < 0 or z > depth[row, column]):
                    index[row, column], weights[row, column], depth[row, column] = t, w, z
    return index, weights, depth


def closest_point(points: np.ndarray, vertices: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Best of all corners, all feet on edges and all feet on planes."""
    best_distance = np.full(len(points), np.inf)
    best_point = np.zeros_like(points)
    for corners in vertices[triangles]:
        for i, p in enumerate(points):
            for candidate in _candidates(p, corners):
                distance = np.linalg.norm(candidate - p)
                if distance < best_distance[i]:
                    best_distance[i], best_point[i] = distance, candidate
    return best_distance, best_point


def _candidates(p: np.ndarray, corners: np.ndarray) -> list[np.ndarray]:
    a, b, c = corners
    found = [a, b, c]
    for start, end in ((a, b), (b, c), (c, a)):
        share = (p - start) @ (end - start) / ((end - start) @ (end - start))
        if 0 < share < 1:
            found.append(start + share * (end - start))
    plane = np.stack([b - a, c - a], axis=1)
    u, v = np.linalg.lstsq(plane, p - a, rcond=None)[0]
    if u > 0 and v > 0 and u + v < 1:
        found.append(a + plane @ (u, v))
    return found
