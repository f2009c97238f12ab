"""Rounds, gates, weights and penalties of the fit to scans."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.landmarks.scheme import GROUPS_66, N_CONTOUR, N_INNER

__all__ = ["IcpSpec", "landmark_weights"]

CHIN = N_INNER + 8


@dataclass(frozen=True, slots=True, kw_only=True)
class IcpSpec:
    """Weights and penalties of E = mean_v w_v r_v^2 + sum_l w_l |d_l|^2 / 66 + penalties (fit_scans), all in mm^2.

    With a landmark weight of 1, 66 exact landmarks count as much as the whole surface.

    Raises:
        ValueError: a number outside its range.
    """

    align_scales: tuple[float, ...] = (14.0, 10.0, 8.0, 6.0, 6.0, 6.0)  # mm, of the landmarks' robust weight while
    # the mean face is aligned with them; one round each
    start_scales: tuple[float, ...] = (8.0, 7.0, 6.0, 6.0)  # mm, the same while both factors are fitted to landmarks
    distances: tuple[float, ...] = (15.0, 12.0, 10.0, 8.0, 6.0, 5.0, 4.0, 4.0, 3.0, 3.0)  # mm, gate; one round each
    normal_degrees: float | int = 50.0
    landmark_scale: float | int = 2.5  # mm, of the landmarks' robust weight once the surface is used
    start_penalty: float | int = 0.06  # mm^2, of both factors while only landmarks are used
    identity_penalty: float | int = 3e-4  # mm^2
    expression_penalty: float | int = 1e-4  # mm^2
    labelled_weight: float | int = 0.05
    lifted_weight: float | int = 0.02
    eyelid_weight: float | int = 0.005  # of lifted points; detectors open closed eyes, the surface is more exact
    mouth_weight: float | int = 0.03
    landmark_depth: float | int = 0.1  # factor on their offsets in depth once the surface is used
    chin_weight: float | int = 0.1  # of a labelled chin, relative to other labels; its definition differs from iBUG's
    margin: float | int = 30.0  # mm around the face's whole set that are fitted; beyond lies hair
    vertices: int = 4000  # largest number in the last rounds
    coarse_vertices: int = 900  # in the rounds before
    fine_rounds: int = 4

    def __post_init__(self) -> None:
        for name in ("align_scales", "start_scales", "distances"):
            values = getattr(self, name)
            if not values or not all(0 < value < float("inf") for value in values):
                raise ValueError(f"{name} must hold positive, finite mm; got {values}")
        for name in ("landmark_scale", "start_penalty", "identity_penalty", "expression_penalty"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be positive and finite; got {getattr(self, name)}")
        for name in (
            "labelled_weight",
            "lifted_weight",
            "eyelid_weight",
            "mouth_weight",
            "chin_weight",
            "landmark_depth",
        ):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be finite and not negative; got {getattr(self, name)}")
        if not 0 < self.normal_degrees <= 90:
            raise ValueError(f"normal_degrees must lie in (0, 90]; got {self.normal_degrees}")
        if not 0 <= self.margin < float("inf"):
            raise ValueError(f"margin must be finite and not negative; got {self.margin} mm")
        if not 100 <= self.coarse_vertices <= self.vertices:
            raise ValueError(
                f"vertices must be at least coarse_vertices, and those at least 100; got {self.vertices}, "
                f"{self.coarse_vertices}"
            )
        if self.fine_rounds < 0:
            raise ValueError(f"fine_rounds must not be negative; got {self.fine_rounds}")


def landmark_weights(spec: IcpSpec, like: Tensor, *, at_start: bool = False) -> Float[Tensor, "132"]:
    """Weights of the 66 labelled points, then of the 66 lifted ones, in the dtype and on the device of `like`.

    Lifted contour points have weight 0: they lie on the rim of the scan, which depends on the view. At the start all
    lifted points weigh the same, so that a hand in front of the eyes does not pull the face away.
    """
    labelled = torch.full((N_INNER + N_CONTOUR,), spec.labelled_weight)
    labelled[CHIN] *= spec.chin_weight
    lifted = torch.full((N_INNER + N_CONTOUR,), spec.lifted_weight)
    if not at_start:
        lifted[list(GROUPS_66["eyes"])] = spec.eyelid_weight
        lifted[list(GROUPS_66["mouth"])] = spec.mouth_weight
    lifted[N_INNER:] = 0.0
    return torch.cat([labelled, lifted]).to(like)
