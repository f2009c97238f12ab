"""Slow twins of the Laplacians and of the smooth field: loops over triangles, dense matrices, one face at a time."""

import numpy as np


def uniform(triangles: np.ndarray, n_vertices: int) -> np.ndarray:
    """C as a dense matrix, from a set of neighbours per vertex."""
    neighbours = [set() for _ in range(n_vertices)]
    for triangle in triangles.tolist():
        for vertex in triangle:
            neighbours[vertex] |= set(triangle) - {vertex}
    matrix = np.zeros((n_vertices, n_vertices))
    for vertex, near in enumerate(neighbours):
        matrix[vertex, list(near)] = 1
        matrix[vertex, vertex] = -len(near)
    return matrix


def cotangent(vertices: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(C, areas): cotangents through the angles themselves, areas by Heron's formula."""
    matrix, areas = np.zeros((len(vertices), len(vertices))), np.zeros(len(vertices))
    for i, j, k in triangles.tolist():
        for apex, a, b in ((i, j, k), (j, k, i), (k, i, j)):
            to_a, to_b = vertices[a] - vertices[apex], vertices[b] - vertices[apex]
            angle = np.arccos(to_a @ to_b / (np.linalg.norm(to_a) * np.linalg.norm(to_b)))
            for row, column in ((a, b), (b, a)):
                matrix[row, column] += 0.5 / np.tan(angle)
                matrix[row, row] -= 0.5 / np.tan(angle)
        sides = [np.linalg.norm(vertices[a] - vertices[b]) for a, b in ((i, j), (j, k), (k, i))]
        half = sum(sides) / 2
        areas[[i, j, k]] += np.sqrt(half * np.prod([half - side for side in sides])) / 3
    return matrix, areas


def smooth_field(
    laplacian: np.ndarray, areas: np.ndarray, stiffness: np.ndarray, weight: np.ndarray, goal: np.ndarray
) -> np.ndarray:
    """The normal equations of one face, solved densely."""
    bending = laplacian / np.sqrt(areas)[:, None]
    system = bending.T @ np.diag(stiffness) @ bending + np.diag(weight)
    return np.linalg.solve(system, weight[:, None] * goal)
