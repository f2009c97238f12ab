"""Slow twin of the NoW-style measure: every point against every triangle, the placement by a general minimiser."""

import numpy as np
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from tests.reference.scan_loops import distances_to_triangles


def now_numbers(scan, scan_seven, vertices, triangles, seven, *, scale=True):
    """Median, mean and standard deviation of the distances inside the sphere, after the least sum of squares."""
    bridge = (scan_seven[1] + scan_seven[2]) / 2
    centre = scan_seven[4] + 0.3 * (bridge - scan_seven[4])
    radius = 0.7 * (np.linalg.norm(scan_seven[3] - scan_seven[0]) + np.linalg.norm(bridge - scan_seven[4]))
    points = scan[np.linalg.norm(scan - centre, axis=1) <= radius]

    def placed(x, rows):
        size = np.exp(x[6]) if scale else 1.0
        return size * Rotation.from_rotvec(x[:3]).apply(rows) + x[3:6]

    start = least_squares(lambda x: (placed(x, seven) - scan_seven).ravel(), np.zeros(7), xtol=1e-14).x

    def distances(x):
        return distances_to_triangles(points, placed(x, vertices)[triangles])

    best = distances(least_squares(distances, start, xtol=1e-10, ftol=1e-12).x)
    return np.median(best), best.mean(), best.std()
