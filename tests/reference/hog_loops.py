"""HOG spelled out, slowly: one pixel, one cell, one bin at a time, in numpy float64.

uoctti follows the description in Felzenszwalb, Girshick, McAllester and Ramanan (PAMI 2010, section 6) and that of
VLFeat's documentation; dalal that of Dalal and Triggs (CVPR 2005), with 2x2 blocks of cells and L2-Hys.
"""

import math
from collections.abc import Callable

import numpy as np

CLIP = 0.2

Pixel = tuple[float, float, float, float]  # x, y, gradient x, gradient y
Weight = Callable[[float, int], float]


def pixels_of_crop(crop: np.ndarray) -> list[Pixel]:
    """Every pixel of a crop [c, h, w] with the gradient of its steepest channel; beyond the border it repeats."""
    _, height, width = crop.shape
    pixels = []
    for y in range(height):
        for x in range(width):
            left, right = max(x - 1, 0), min(x + 1, width - 1)
            above, below = max(y - 1, 0), min(y + 1, height - 1)
            steps = [(c[y, right] - c[y, left], c[below, x] - c[above, x]) for c in crop]
            pixels.append((x, y, *steepest(steps)))
    return pixels


def pixels_of_patch(patch: np.ndarray) -> list[Pixel]:
    """Every pixel of a patch on its own [c, s, s] that has four neighbours, and its steepest channel's gradient."""
    size = patch.shape[-1]
    pixels = []
    for y in range(1, size - 1):
        for x in range(1, size - 1):
            steps = [(c[y, x + 1] - c[y, x - 1], c[y + 1, x] - c[y - 1, x]) for c in patch]
            pixels.append((x, y, *steepest(steps)))
    return pixels


def steepest(steps: list[tuple[float, float]]) -> tuple[float, float]:
    """The first of those that are equally long but for rounding."""
    chosen = steps[0]
    for step in steps[1:]:
        if step[0] ** 2 + step[1] ** 2 > 1.000073 * (chosen[0] ** 2 + chosen[1] ** 2):
            chosen = step
    return chosen


def hat(distance: float, cell: int) -> float:
    """Bilinear voting: a pixel shares its vote between the two nearest cell centres of each axis."""
    return max(0.0, 1.0 - abs(distance) / cell)


def box(distance: float, cell: int) -> float:
    """No interpolation between cells: the share of the pixel's unit square that the cell covers."""
    return min(max(0.5 + cell / 2 - abs(distance), 0.0), 1.0)


def histogram(
    pixels: list[Pixel], centre: tuple[float, float], cell: int, bins: int, vote: str, weight: Weight
) -> np.ndarray:
    """One cell. 18 bins: directed, centred at multiples of 20 degrees. 9 bins: undirected, [0, 20) ... [160, 180)."""
    out = np.zeros(bins)
    for x, y, gx, gy in pixels:
        strength = weight(x - centre[0], cell) * weight(y - centre[1], cell) * math.hypot(gx, gy)
        if strength == 0:
            continue
        degrees = math.degrees(math.atan2(gy, gx)) % (20 * bins)
        position = degrees / 20 if bins == 18 else degrees / 20 - 0.5  # in bins, from the centre of the first
        if vote == "hard":
            out[round(position) % bins] += strength
            continue
        below = math.floor(position)
        out[below % bins] += strength * (below + 1 - position)
        out[(below + 1) % bins] += strength * (position - below)
    return out


def uoctti_cell(cells: dict[tuple[int, int], np.ndarray], row: int, column: int) -> np.ndarray:
    """31 numbers of one cell: 18 directed bins, 9 undirected bins, 4 texture energies."""

    def energy(i: int, j: int) -> float:
        rows, columns = [r for r, _ in cells], [c for _, c in cells]
        i, j = min(max(i, min(rows)), max(rows)), min(max(j, min(columns)), max(columns))
        return sum((cells[i, j][k] + cells[i, j][k + 9]) ** 2 for k in range(9))

    own = cells[row, column]
    values = [*own, *(own[k] + own[k + 9] for k in range(9))]
    bins, texture = np.zeros(27), []
    for i in (row - 1, row):
        for j in (column - 1, column):
            norm = math.sqrt(energy(i, j) + energy(i + 1, j) + energy(i, j + 1) + energy(i + 1, j + 1) + 1e-4)
            clipped = np.array([min(value / norm, CLIP) for value in values])
            bins += 0.5 * clipped
            texture.append(clipped[18:].sum() / math.sqrt(18))
    return np.array([*bins, *texture])


def uoctti_patch(patch: np.ndarray, cell: int, vote: str) -> np.ndarray:
    """A patch described on its own, cell by cell."""
    n = patch.shape[-1] // cell
    pixels = pixels_of_patch(patch)
    middle = [(i + 0.5) * cell - 0.5 for i in range(n)]
    cells = {(i, j): histogram(pixels, (middle[j], middle[i]), cell, 18, vote, hat) for i in range(n) for j in range(n)}
    return np.concatenate([uoctti_cell(cells, i, j) for i in range(n) for j in range(n)])


def crop_cells(
    crop: np.ndarray, point: tuple[float, float], patch: int, cell: int, bins: int, vote: str, ring: int
) -> dict[tuple[int, int], np.ndarray]:
    """Cells of the patch around a point anywhere, and of a ring around it; pixels outside the crop do not vote."""
    n = patch // cell
    pixels = pixels_of_crop(crop)
    weight = hat if bins == 18 else box
    first = [p - patch // 2 + cell / 2 - 0.5 for p in point]
    span = range(-ring, n + ring)
    return {
        (i, j): histogram(pixels, (first[0] + j * cell, first[1] + i * cell), cell, bins, vote, weight)
        for i in span
        for j in span
    }


def uoctti_at(crop: np.ndarray, point: tuple[float, float], patch: int, cell: int, vote: str) -> np.ndarray:
    """A landmark of a crop, its patch knowing what lies around it."""
    cells = crop_cells(crop, point, patch, cell, 18, vote, ring=1)
    span = range(patch // cell)
    return np.concatenate([uoctti_cell(cells, i, j) for i in span for j in span])


def dalal_at(crop: np.ndarray, point: tuple[float, float], patch: int, cell: int, vote: str) -> np.ndarray:
    """A landmark of a crop: blocks row by row."""
    cells = crop_cells(crop, point, patch, cell, 9, vote, ring=0)
    blocks = []
    for i in range(patch // cell - 1):
        for j in range(patch // cell - 1):
            block = np.concatenate([cells[i + a, j + b] for a in (0, 1) for b in (0, 1)]) / cell**2
            block = np.minimum(block / math.sqrt((block**2).sum() + 1e-10), CLIP)
            blocks.append(block / math.sqrt((block**2).sum() + 1e-10))
    return np.concatenate(blocks)


def mirror_order(variant: str, cells: int) -> np.ndarray:
    """mirrored descriptor = descriptor[mirror_order], for a left-right flip of the patch."""
    if variant == "dalal":
        grid = np.arange((cells - 1) ** 2 * 36).reshape(cells - 1, cells - 1, 2, 2, 9)
        return grid[:, ::-1, :, ::-1, ::-1].ravel()
    grid = np.arange(cells**2 * 31).reshape(cells, cells, 31)[:, ::-1]
    directed = [(9 - k) % 18 for k in range(18)]
    undirected = [18 + (9 - k) % 9 for k in range(9)]
    return grid[..., [*directed, *undirected, 28, 27, 30, 29]].ravel()
