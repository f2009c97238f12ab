"""Crops as two products with whole weight matrices, whose entries are written one at a time."""

import math

import torch
from torch import Tensor


def resampled(part: Tensor, places: Tensor, density: Tensor, outside: str) -> Tensor:
    """The picture [b, c, height, width] at columns and rows `places` [b, 2, n], which stand for 1 / density px."""
    crops = []
    for picture, (x, y), dense in zip(part, places, density.tolist()):
        rows = _matrix(y.tolist(), picture.shape[-2], max(1.0, 1 / dense), outside)
        columns = _matrix(x.tolist(), picture.shape[-1], max(1.0, 1 / dense), outside)
        crops.append(rows.to(picture) @ picture @ columns.to(picture).T)
    return torch.stack(crops)


def _matrix(places: list[float], extent: int, kernel: float, outside: str) -> Tensor:
    matrix = torch.zeros(len(places), extent, dtype=torch.float64)
    for k, place in enumerate(places):
        reach = math.ceil(2 * kernel) + 1
        pixels = range(math.floor(place) - reach, math.floor(place) + reach + 1)
        weights = [_keys((pixel - place) / kernel) for pixel in pixels]
        for pixel, weight in zip(pixels, weights):
            if outside == "edge" or 0 <= pixel < extent:
                matrix[k, min(max(pixel, 0), extent - 1)] += weight / sum(weights)
    return matrix


def _keys(x: float) -> float:
    """Keys (1981), a = -1/2."""
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0
