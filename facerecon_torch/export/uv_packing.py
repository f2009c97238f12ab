"""Flat pieces laid into a square without overlap, at the largest scale at which a search by size finds room."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float

from facerecon_torch.geometry.mesh_queries import get_backend

__all__ = ["packed_pieces"]

_CELLS = 192  # a side of the grid on which room is searched
_FINER = 4  # samples per cell and axis, of which one that is covered takes the cell
_GAP = 2  # cells between pieces
_MOST = 64  # pieces
_STEPS = 9  # of the bisection of the scale


def packed_pieces(pieces: Sequence[Float[np.ndarray, "_ 3 2"]]) -> tuple[float, Float[np.ndarray, "n 2"]]:
    """The scale of all pieces, and the places of their lower left corners in the unit square.

    Args:
        pieces: triangles in the plane, of which each piece has some area and begins at (0, 0).

    Raises:
        ValueError: more than 64 pieces, whose gaps would take the square and the search for them minutes.
    """
    if len(pieces) > _MOST:
        raise ValueError(
            f"texture.coordinates=packed needs a texture of at most {_MOST} islands; this one has {len(pieces)}: use "
            "texture.coordinates=model"
        )
    low, high, best = 0.0, 1 / max(float(piece.max()) for piece in pieces), np.zeros((len(pieces), 2))
    for _ in range(_STEPS):
        middle = (low + high) / 2
        starts = _places([_cells(piece * middle) for piece in pieces])
        low, high, best = (low, middle, best) if starts is None else (middle, high, starts)
    return low, best


def _cells(piece: Float[np.ndarray, "n 3 2"]) -> Bool[np.ndarray, "rows columns"]:
    """The cells of the grid that a piece in the unit square touches."""
    columns, rows = (np.ceil(piece.max((0, 1)) * _CELLS).astype(int) + 1).tolist()
    flat = torch.from_numpy(piece.reshape(-1, 2)) * (_CELLS * _FINER)
    points = torch.cat([flat, torch.zeros_like(flat[:, :1])], -1)
    raster = get_backend().rasterise(points, torch.arange(len(points)).reshape(-1, 3), rows * _FINER, columns * _FINER)
    covered = (raster.triangle >= 0).numpy()
    row, column = (flat / _FINER).long().numpy().T[::-1]
    cells = np.array(covered.reshape(rows, _FINER, columns, _FINER).any((1, 3)), dtype=bool)
    cells[row, column] = True  # corners lie between samples
    return cells


def _overlaps(taken: Float[np.ndarray, "_ _"], piece: Bool[np.ndarray, "rows columns"]) -> Float[np.ndarray, "_ _"]:
    """The number of taken cells under the piece at every place where it lies inside; a correlation by the FFT."""
    shape = taken.shape
    every = np.fft.irfft2(np.fft.rfft2(taken) * np.fft.rfft2(piece, shape).conj(), shape)
    return every[: shape[0] - piece.shape[0] + 1, : shape[1] - piece.shape[1] + 1]


def _places(pieces: Sequence[Bool[np.ndarray, "_ _"]]) -> Float[np.ndarray, "n 2"] | None:
    """Places of the pieces, found from the one of most cells to that of the fewest; None where one finds none."""
    taken = np.ones((_CELLS, _CELLS), np.float32)
    taken[1:-1, 1:-1] = 0
    starts = np.zeros((len(pieces), 2))
    for k in np.argsort([-piece.sum() for piece in pieces], kind="stable"):
        piece = pieces[k]
        if max(piece.shape) > _CELLS:
            return None
        free = np.argwhere(_overlaps(taken, piece) < 0.5)
        if not len(free):
            return None
        row, column = free[0]
        starts[k] = column / _CELLS, row / _CELLS
        rows, columns = piece.shape
        wide = np.pad(piece, _GAP)
        near = np.zeros((rows + 2 * _GAP, columns + 2 * _GAP), np.bool_)
        for down in range(-_GAP, _GAP + 1):
            for right in range(-_GAP, _GAP + 1):
                np.logical_or(near, np.roll(wide, (down, right), (0, 1)), out=near)
        top, left = row - _GAP, column - _GAP
        inside = near[max(0, -top) : _CELLS - top, max(0, -left) : _CELLS - left]
        target = taken[max(0, top) : top + near.shape[0], max(0, left) : left + near.shape[1]]
        np.maximum(target, inside, out=target)
    return starts
