"""A range scan as its sensor delivers it: a grid of 3D points, not all of them measured."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LARGEST_COORDINATE", "RangeGrid"]

LARGEST_COORDINATE = 1e4
"""mm; face scanners measure no points ten metres away, but damaged bytes often decode to such numbers."""


@dataclass(frozen=True)
class RangeGrid:
    """A grid of range points in the sensor's frame, of which at least one is measured.

    Rows are ordered as in an image: the first is the top, so y falls with the row and x grows with the column. Cells
    that were not measured are set to (0, 0, 0), never NaN: mask them before any bounding box or search.

    Args:
        points: [rows, columns, 3] in mm, +x to image right, +y up, +z towards the viewer.
        valid: [rows, columns], bool; False where nothing was measured.

    Raises:
        TypeError: no tensors.
        ValueError: wrong shapes or dtypes, no measured point, or one that is too far from the origin.
    """

    points: Tensor
    valid: Tensor

    def __post_init__(self) -> None:
        if not (isinstance(self.points, Tensor) and isinstance(self.valid, Tensor)):
            raise TypeError(f"points and valid must be tensors; got {type(self.points)} and {type(self.valid)}")
        if self.points.ndim != 3 or self.points.shape[2] != 3 or not self.points.is_floating_point():
            raise ValueError(
                f"points must be floats of shape (rows, columns, 3); got {self.points.dtype} {tuple(self.points.shape)}"
            )
        if self.valid.shape != self.points.shape[:2] or self.valid.dtype != torch.bool:
            raise ValueError(
                f"valid must be bool of shape {tuple(self.points.shape[:2])}; "
                f"got {self.valid.dtype} {tuple(self.valid.shape)}"
            )
        measured = self.points[self.valid]
        if not len(measured):
            raise ValueError("valid must hold at least one measured point; got none")
        if not bool((measured.abs() <= LARGEST_COORDINATE).all()):  # this form refuses NaN too
            raise ValueError(f"measured points must lie within {LARGEST_COORDINATE:g} mm of the origin")
        object.__setattr__(self, "points", self.points.where(self.valid[..., None], 0))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.points.shape[0], self.points.shape[1]

    @property
    def measured(self) -> Tensor:
        """Valid points, [n, 3], row by row from the top."""
        return self.points[self.valid]
