"""Binds model, camera and features into the cascade's h(x, k)."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.features.joint import JointSpec, joint_feature
from facerecon_torch.fitting.coefficients import LandmarkFitter
from facerecon_torch.geometry.projection import project
from facerecon_torch.pipeline.crop_bank import CHUNK, CropBank
from facerecon_torch.structures import Camera, FaceParameters

__all__ = ["FaceObserver", "Observed", "View", "select_blocks"]


@dataclass(frozen=True)
class View:
    """A face under given parameters: landmarks in mm (model frame) and px (crop), camera, contour vertices."""

    points: Float[Tensor, "n 66 3"]
    projected: Float[Tensor, "n 66 2"]
    camera: Camera
    contour_vertices: Int[Tensor, "n 17"]


@dataclass(frozen=True)
class Observed:
    """What is known of a set of samples before any parameters: landmarks in crop px, the camera to start the search
    for a new one from, the crops, and, where it is known, the size of every face in crop px per mm."""

    landmarks: Float[Tensor, "n 66 2"]
    camera: Camera
    bank: CropBank
    scale: Float[Tensor, "n"] | None = None


class FaceObserver:
    """h(x, k) of a set of samples: joint features [n, d] of parameters x [n, p].

    For every x the camera is solved again (Eq. 6), with the contour as that camera sees it; then HOG is read around the
    projected landmarks (Section 3.3) and the displacements to the detected landmarks are taken (Eq. 8, 9). All in crop
    px. `first` are the features of stage 0, where they are known: all methods and folds start from the same x.
    """

    def __init__(
        self,
        fitter: LandmarkFitter,
        n_identity: int,
        observed: Observed,
        spec: JointSpec,
        *,
        first: Float[Tensor, "n d"] | None = None,
    ) -> None:
        self._fitter = fitter
        self._n_identity = n_identity
        self._observed = observed
        self._spec = spec
        self._first = first

    def view(self, x: Float[Tensor, "n p"]) -> View:
        """Camera and landmarks of parameters x."""
        seen, parameters = self._observed, FaceParameters.from_flat(x, self._n_identity)
        camera = self._fitter.refine_camera(parameters, seen.landmarks, seen.camera, scale=seen.scale)
        points, contour = self._fitter.landmarks(parameters, camera)
        return View(points, project(points, camera), camera, contour)

    def __call__(self, x: Float[Tensor, "n p"], stage: int) -> Float[Tensor, "n d"]:
        if stage == 0 and self._first is not None:
            return self._first
        return self.features(self.view(x))

    def features(self, view: View) -> Float[Tensor, "n d"]:
        """Eq. 10 for every sample, a chunk at a time: only the answer grows with the number of samples."""
        out = view.projected.new_empty(len(view.projected), self._spec.length)
        for start in range(0, len(out), CHUNK):
            part = slice(start, start + CHUNK)
            field = self._observed.bank.field(part, out) if "hog" in self._spec.blocks else None
            landmarks, projected = self._observed.landmarks[part], view.projected[part]
            out[part] = joint_feature(field, landmarks, projected, view.camera.scale[part], self._spec)
        return out

    def with_blocks(self, blocks: tuple[str, ...], joint: Float[Tensor, "n d"]) -> "FaceObserver":
        """An observer of some blocks only, whose features of stage 0 are those columns of `joint`."""
        spec = replace(self._spec, blocks=blocks)
        first = select_blocks(joint, self._spec, blocks)
        return FaceObserver(self._fitter, self._n_identity, self._observed, spec, first=first)


def select_blocks(joint: Float[Tensor, "n d"], spec: JointSpec, blocks: tuple[str, ...]) -> Float[Tensor, "n e"]:
    """Some blocks of a joint feature of `spec`, in the order asked for; a view where one block, or all, is."""
    if blocks == tuple(spec.blocks):
        return joint
    parts = dict(zip(spec.blocks, torch.split(joint, list(spec.block_sizes), dim=1)))
    return parts[blocks[0]] if len(blocks) == 1 else torch.cat([parts[name] for name in blocks], dim=1)
