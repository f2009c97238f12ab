"""The 68 iBUG landmarks and the 66 of the paper: names, orders, mirror pairs, groups and face sizes.

Left and right are those of the picture: `left` points have the smaller x in a frontal, upright face (they
belong to the person's right side). The paper's order is 49 inner points, iBUG 17..67 without the inner mouth
corners 60 and 64, then the 17 contour points, iBUG 0..16. A landmark that a source does not give is NaN.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from facerecon_torch.model.topology import N_CONTOUR, N_LANDMARKS

__all__ = [
    "CONVENTIONS",
    "check_convention",
    "GROUPS_66",
    "GROUPS_68",
    "IBUG_OF_PAPER",
    "MIRROR_66",
    "MIRROR_68",
    "NAMES_66",
    "NAMES_68",
    "N_CONTOUR",
    "N_INNER",
    "N_LANDMARKS",
    "from_paper66",
    "interocular",
    "interpupillary",
    "is_present",
    "mirror_points",
    "to_paper66",
]

N_INNER = N_LANDMARKS - N_CONTOUR
CONVENTIONS = ("mediapipe", "ibug")
"""The meanings that a set of 66 points can have: brows, nose and chin of Face Mesh's points (`mesh_points`), or those
of iBUG's annotators, which dlib and face-alignment learned. A cascade serves the convention that it was trained for."""
_LEFT_OUT = (60, 64)
# Share of the way from an outer mouth corner to the middle of the inner lips' next two points at which
# detectors put the inner corner: the mean over both corners of three portraits seen by dlib (single values
# 0.11 to 0.22).
_INNER_CORNER_SHARE = 0.16

_EYE = ["outer_corner", "upper_1", "upper_2", "inner_corner", "lower_1", "lower_2"]
NAMES_68: tuple[str, ...] = (
    *(f"contour_{i}" for i in range(1, 18)),
    *(f"left_brow_{i}" for i in range(1, 6)),
    *(f"right_brow_{i}" for i in range(1, 6)),
    *(f"nose_bridge_{i}" for i in range(1, 5)),
    *(f"nose_base_{i}" for i in range(1, 6)),
    *(f"left_eye_{part}" for part in _EYE),
    *(f"right_eye_{part}" for part in ("inner_corner", "upper_1", "upper_2", "outer_corner", "lower_1", "lower_2")),
    "mouth_left_corner",
    *(f"upper_lip_outer_{i}" for i in range(1, 6)),
    "mouth_right_corner",
    *(f"lower_lip_outer_{i}" for i in range(1, 6)),
    "mouth_inner_left_corner",
    *(f"upper_lip_inner_{i}" for i in range(1, 4)),
    "mouth_inner_right_corner",
    *(f"lower_lip_inner_{i}" for i in range(1, 4)),
)

IBUG_OF_PAPER: tuple[int, ...] = (*(i for i in range(17, 68) if i not in _LEFT_OUT), *range(17))
_PAPER_OF_IBUG = {ibug: paper for paper, ibug in enumerate(IBUG_OF_PAPER)}
NAMES_66: tuple[str, ...] = tuple(NAMES_68[i] for i in IBUG_OF_PAPER)

MIRROR_68: tuple[int, ...] = (
    *range(16, -1, -1),  # contour
    *range(26, 16, -1),  # brows
    *(27, 28, 29, 30, 35, 34, 33, 32, 31),  # nose
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),  # outer lips
    *(64, 63, 62, 61, 60, 67, 66, 65),  # inner lips
)
"""MIRROR_68[i] is the point that stands where i stood once the picture is mirrored."""
MIRROR_66: tuple[int, ...] = tuple(_PAPER_OF_IBUG[MIRROR_68[i]] for i in IBUG_OF_PAPER)

GROUPS_68: dict[str, tuple[int, ...]] = {
    "contour": tuple(range(17)),
    "brows": tuple(range(17, 27)),
    "nose": tuple(range(27, 36)),
    "eyes": tuple(range(36, 48)),
    "mouth": tuple(range(48, 68)),
}
GROUPS_66: dict[str, tuple[int, ...]] = {
    name: tuple(_PAPER_OF_IBUG[i] for i in members if i not in _LEFT_OUT) for name, members in GROUPS_68.items()
}


def check_convention(value: object, key: str = "convention") -> None:
    """Raise ValueError unless `value` is one of `CONVENTIONS`; `key` is how the user spells it."""
    if value not in CONVENTIONS:
        raise ValueError(f"{key} must be {' or '.join(CONVENTIONS)}; got {value!r}")


def to_paper66(points: Float[Tensor, "*b 68 c"]) -> Float[Tensor, "*b 66 c"]:
    """The 66 points in the paper's order: inner points first, then the contour; iBUG 60 and 64 are left out.

    Args:
        points: in iBUG order, of any unit.

    Example:
        >>> to_paper66(detector.detect([image])[0][0].points).shape
        torch.Size([66, 2])
    """
    return points[..., list(IBUG_OF_PAPER), :]


def from_paper66(points: Float[Tensor, "*b 66 c"]) -> Float[Tensor, "*b 68 c"]:
    """The 68 points in iBUG order.

    The two inner mouth corners are not known: each is put 16 % of the way from its outer corner (48, 54) to the middle
    of the neighbours on the inner lips (61 and 67, 63 and 65).

    Args:
        points: in the paper's order, of any unit.

    Example:
        >>> from_paper66(faces.landmarks).shape[-2]
        68
    """
    full = points.new_empty((*points.shape[:-2], 68, points.shape[-1]))
    full[..., list(IBUG_OF_PAPER), :] = points
    for inner, outer, upper, lower in ((60, 48, 61, 67), (64, 54, 63, 65)):
        lips = (full[..., upper, :] + full[..., lower, :]) / 2
        full[..., inner, :] = torch.lerp(full[..., outer, :], lips, _INNER_CORNER_SHARE)
    return full


def is_present(points: Float[Tensor, "*b n c"]) -> Bool[Tensor, "*b n"]:
    """Whether each landmark is there: a missing one is NaN.

    Args:
        points: landmarks in any order and unit.

    Example:
        >>> points[is_present(points)]
    """
    return ~torch.isnan(points).any(dim=-1)


def mirror_points(points: Float[Tensor, "*b n 2"], width: int) -> Float[Tensor, "*b n 2"]:
    """The landmarks of the image flipped left to right: x -> width - 1 - x, left and right exchange names.

    The function is its own inverse.

    Args:
        points: 68 or 66 landmarks in px.
        width: of the image in px.

    Raises:
        ValueError: another number of points.

    Example:
        >>> mirror_points(points, image.shape[-1])
    """
    order = _by_count(points, MIRROR_68, MIRROR_66)
    mirrored = points[..., list(order), :]
    return torch.stack([width - 1 - mirrored[..., 0], mirrored[..., 1]], dim=-1)


def interocular(points: Float[Tensor, "*b n c"]) -> Float[Tensor, "*b"]:
    """The distance of the outer eye corners (iBUG 36 and 45), in the unit of the points.

    Args:
        points: 68 in iBUG order, or 66 in the paper's.

    Raises:
        ValueError: another number of points.

    Example:
        >>> error / interocular(truth)
    """
    left, right = _by_count(points, (36, 45), (_PAPER_OF_IBUG[36], _PAPER_OF_IBUG[45]))
    return _distance(points[..., left, :], points[..., right, :])


def interpupillary(points: Float[Tensor, "*b n c"]) -> Float[Tensor, "*b"]:
    """The distance of the means of the six points of each eye, in the unit of the points.

    Args:
        points: 68 in iBUG order, or 66 in the paper's.

    Raises:
        ValueError: another number of points.

    Example:
        >>> 63.0 / interpupillary(landmarks_3d)  # the size of a face with 63 mm between its pupils
    """
    eyes = list(_by_count(points, GROUPS_68["eyes"], GROUPS_66["eyes"]))
    left, right = points[..., eyes[:6], :].mean(dim=-2), points[..., eyes[6:], :].mean(dim=-2)
    return _distance(left, right)


def _by_count(points: Tensor, of_68: tuple[int, ...], of_66: tuple[int, ...]) -> tuple[int, ...]:
    if points.shape[-2] not in (N_LANDMARKS, 68):
        raise ValueError(f"points must hold 68 (iBUG) or 66 (paper) landmarks; got {tuple(points.shape)}")
    return of_68 if points.shape[-2] == 68 else of_66


def _distance(a: Tensor, b: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(a - b, dim=-1)
    return length
