"""Binds model, camera and features into the cascade's h(x, k)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.features.displacement import displacement
from facerecon_torch.features.hog_spec import HogSpec
from facerecon_torch.fitting.coefficients import LandmarkFitter
from facerecon_torch.geometry.projection import project
from facerecon_torch.model.topology import N_LANDMARKS
from facerecon_torch.pipeline.hog_bank import HogBank
from facerecon_torch.structures import Camera, FaceParameters

__all__ = ["BLOCKS", "FaceObserver", "View", "block_sizes", "select_columns"]

BLOCKS = ("hog", "ld")


@dataclass(frozen=True)
class View:
    """A face under given parameters: landmarks in mm (model frame) and px (crop), camera, contour vertices."""

    points: Float[Tensor, "n 66 3"]
    projected: Float[Tensor, "n 66 2"]
    camera: Camera
    contour_vertices: Int[Tensor, "n 17"]


def block_sizes(hog: HogSpec) -> dict[str, int]:
    """Columns of every feature block."""
    return {"hog": N_LANDMARKS * hog.length, "ld": 2 * N_LANDMARKS}


def select_columns(joint: Float[Tensor, "n d"], blocks: Sequence[str], sizes: dict[str, int]) -> Tensor:
    """Some blocks of features that hold all of BLOCKS in order: a view where one block, or all, is asked for."""
    if tuple(blocks) == BLOCKS:
        return joint
    parts = dict(zip(BLOCKS, torch.split(joint, [sizes[name] for name in BLOCKS], dim=1)))
    return parts[blocks[0]] if len(blocks) == 1 else torch.cat([parts[name] for name in blocks], dim=1)


class FaceObserver:
    """h(x, k) of a set of samples: joint features [n, d] of parameters x [n, p].

    For every x the camera is solved again (Eq. 6), with the contour as that camera sees it; then HOG is read around the
    projected landmarks (Section 3.3) and the displacements to the detected landmarks are taken (Eq. 8, 9). All in crop
    px. The features of stage 0, which start from the same x for every method and fold, are kept on request.
    """

    def __init__(
        self,
        fitter: LandmarkFitter,
        n_identity: int,
        landmarks: Float[Tensor, "n 66 2"],
        camera: Camera,
        bank: HogBank,
        *,
        blocks: Sequence[str] = ("hog", "ld"),
        contour_component: str = "normal",
        scale: Float[Tensor, "n"] | None = None,
        first: Float[Tensor, "n d"] | None = None,
    ) -> None:
        self._fitter = fitter
        self._n_identity = n_identity
        self._landmarks = landmarks
        self._camera = camera
        self._bank = bank
        self._blocks = tuple(blocks)
        self._contour_component = contour_component
        self._scale = scale
        self._first = first

    def view(self, x: Float[Tensor, "n p"]) -> View:
        """Camera and landmarks of parameters x."""
        parameters = FaceParameters.from_flat(x, self._n_identity)
        camera = self._fitter.refine_camera(parameters, self._landmarks, self._camera, scale=self._scale)
        points, contour = self._fitter.landmarks(parameters, camera)
        return View(points, project(points, camera), camera, contour)

    def __call__(self, x: Float[Tensor, "n p"], stage: int) -> Float[Tensor, "n d"]:
        if stage == 0 and self._first is not None:
            return self._first
        return self.features(self.view(x))

    def features(self, view: View) -> Float[Tensor, "n d"]:
        """The blocks side by side: HOG without unit, displacements in mm in the image plane."""
        sizes = block_sizes(self._bank.spec)
        out = view.projected.new_empty(len(view.projected), sum(sizes[name] for name in self._blocks))
        start = 0
        for name in self._blocks:
            columns = out[:, start : start + sizes[name]]
            if name == "hog":
                self._bank.describe(view.projected, columns)
            else:
                moved = displacement(
                    self._landmarks, view.projected, view.camera.scale, contour_component=self._contour_component
                )
                columns.copy_(moved.flatten(1))
            start += sizes[name]
        return out
