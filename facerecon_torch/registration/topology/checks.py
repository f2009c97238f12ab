"""Limits and plausibility checks of derived landmarks, contour lines and vertex sets."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.landmarks.scheme import GROUPS_68, IBUG_OF_PAPER, MIRROR_66, NAMES_68

__all__ = ["DerivedItem", "TopologyLimits", "landmark_name", "misplaced"]

_SLACK_MM = 2.0  # tolerated error in the order of two neighbours
_LEFT = (*range(8), *range(17, 22), 31, 32, *range(36, 42), 48, 49, 50, 58, 59, 61, 67)  # iBUG, of the image
_CONTOUR = [IBUG_OF_PAPER.index(i) for i in range(17)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologyLimits:
    """Limits beyond which a derived item is uncertain, in mm unless said otherwise."""

    landmark_distance: float = 3.0  # from the registered face to the mesh's surface
    landmark_turn: float = 60.0  # degrees between the mean normals around both places
    nearby_disagreement: float = 6.0  # median of the given landmarks around, held out of the registration
    nearby_radius: float = 40.0
    known_disagreement: float = 12.0  # of a given inner landmark with its place on the registered face
    contour_disagreement: float = 20.0  # of a given contour landmark with its line; definitions of the jaw differ
    replaceable: float = 0.1  # share of the listed landmarks that may be wrong; with more the list is another mesh's
    asymmetry: float = 10.0  # of a pair with a derived landmark, about the face's middle plane
    line_coverage: float = 0.6  # share of a line with vertices
    line_vertices: int = 3
    line_distance: float = 3.0
    set_coverage: float = 0.9  # share of the default set's vertices with surface beneath
    set_distance: float = 3.0


@dataclass(frozen=True, kw_only=True)
class DerivedItem:
    """One entry of a topology with its measures; measures that do not apply are None. `reason` says why the entry is
    uncertain, and is empty otherwise."""

    kind: Literal["landmark", "known landmark", "line", "known line", "set", "known set"]
    name: str  # of the landmark, of the set, or of the line's landmark
    index: int  # paper landmark (0..65), line (0..16) or set (0 centre, 1 whole)
    distance: float  # mm from the registered face to the mesh
    turn: float | None = None  # degrees between the mean normals around both places
    nearby: float | None = None  # mm, median held-out error of the given landmarks around
    coverage: float | None = None  # share of the default line or set that the mesh has
    reason: str = ""


def landmark_name(paper: int) -> str:
    """Number among the 68 and name of one of the 66 landmarks."""
    ibug = IBUG_OF_PAPER[paper]
    return f"{ibug} ({NAMES_68[ibug]})"


def misplaced(points: Float[Tensor, "66 3"], paired: set[int], limits: TopologyLimits) -> dict[int, str]:
    """Landmarks at impossible places, with the reason: exchanged sides, wrong order of features, asymmetric pairs.

    `points` are in mm in the default face's frame. Only landmarks in `paired` are compared with the mirror images of
    their partners: given landmarks may be asymmetric on purpose.
    """
    return {**_asymmetric(points, paired, limits), **_out_of_order(points), **_exchanged(points)}


def _exchanged(points: Float[Tensor, "66 3"]) -> dict[int, str]:
    reasons = {}
    for point in _LEFT:
        left = IBUG_OF_PAPER.index(point)
        right = MIRROR_66[left]
        if points[left, 0] > points[right, 0] - _SLACK_MM:
            reason = "stands on the wrong side: left is the side with the smaller x"
            reasons[left] = reasons[right] = reason
    return reasons


def _out_of_order(points: Float[Tensor, "66 3"]) -> dict[int, str]:
    """Landmarks that break the order brows, eyes, nose, mouth, chin from top to bottom, or that of the contour."""
    rows = {name: [IBUG_OF_PAPER.index(i) for i in GROUPS_68[name] if i in IBUG_OF_PAPER] for name in GROUPS_68}
    chin = IBUG_OF_PAPER.index(8)
    ladder = (("brows", rows["brows"]), ("eyes", rows["eyes"]), ("nose", rows["nose"][4:]), ("mouth", rows["mouth"]))
    reasons: dict[int, str] = {}
    for (upper, above), (lower, below) in zip(ladder, (*ladder[1:], ("chin", [chin]))):
        floor = points[below, 1].mean()
        for paper in above:
            if points[paper, 1] < floor - _SLACK_MM:
                reasons[paper] = f"stands below the {lower}, where the {upper} stand above"
    height, side = points[_CONTOUR, 1], points[_CONTOUR, 0]
    for k in range(1, 17):
        back = height[k] > height[k - 1] + _SLACK_MM if k <= 8 else height[k] < height[k - 1] - _SLACK_MM
        if 3 <= k <= 13:
            back = back | (side[k] < side[k - 1] - _SLACK_MM)
        if bool(back):
            reasons[_CONTOUR[k]] = f"steps back along the contour after {landmark_name(_CONTOUR[k - 1])}"
    return reasons


def _asymmetric(points: Float[Tensor, "66 3"], paired: set[int], limits: TopologyLimits) -> dict[int, str]:
    mirror = torch.tensor(MIRROR_66)
    across = points - points[mirror]
    pairs = across.norm(dim=-1) > 0
    axis = torch.nn.functional.normalize((across[pairs] * across[pairs, :1].sign()).sum(0), dim=0)
    middle = ((points + points[mirror]) / 2 @ axis).median()
    reflected = points - 2 * ((points @ axis) - middle)[:, None] * axis
    offset = (reflected[mirror] - points).norm(dim=-1)
    return {
        paper: f"lies {float(offset[paper]):.1f} mm from the mirror image of its partner (limit {limits.asymmetry:g})"
        for paper in sorted(paired)
        if float(offset[paper]) > limits.asymmetry
    }
