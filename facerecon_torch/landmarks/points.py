"""Every form in which a program holds landmarks, as the 66 points that the method uses."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.landmarks.scheme import to_paper66

__all__ = ["as_points66"]


def as_points66(landmarks: Any) -> Float[Tensor, "*b 66 2"]:
    """The 66 points in px, in the paper's order, float32 or float64; lists of numbers become float64.

    Args:
        landmarks: a tensor, an array or nested lists [..., 68, 2] in iBUG order or [..., 66, 2] in the paper's order.

    Raises:
        TypeError: numbers are expected.
        ValueError: another shape, or points that are not finite.

    Example:
        >>> as_points66(torch.zeros(68, 2)).shape
        torch.Size([66, 2])
    """
    # torch would round the numbers of lists to its default dtype
    points = torch.as_tensor(_array(landmarks) if isinstance(landmarks, (list, tuple)) else landmarks)
    if points.is_complex() or points.dtype == torch.bool:
        raise TypeError(f"landmarks must be numbers in px; got {points.dtype}")
    if points.ndim < 2 or points.shape[-2] not in (66, 68) or points.shape[-1] != 2:
        raise ValueError(
            f"landmarks must have shape [..., 66, 2] (paper order) or [..., 68, 2] (iBUG); got {list(points.shape)}"
        )
    if points.dtype not in (torch.float32, torch.float64):
        points = points.to(torch.float64)
    if not bool(torch.isfinite(points).all()):
        raise ValueError("landmarks must be finite; got NaN or infinity")
    return to_paper66(points) if points.shape[-2] == 68 else points


def _array(landmarks: Any) -> NDArray[np.float64]:
    """Nested lists, which may hold arrays and tensors, as one array."""
    try:
        return np.array(landmarks, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"landmarks must be numbers in px in lists of equal length; {error}") from error
