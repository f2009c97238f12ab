"""Cascades that regress the camera beside the shape, as Zhu et al. (FG 2015) do: x = [identity; expression; pose]."""

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.cascade.observe import FaceObserver
from facerecon_torch.commands.train.first_stage import FirstStage, SplitState
from facerecon_torch.commands.train.samples import Samples
from facerecon_torch.geometry.projection import project
from facerecon_torch.geometry.rotation import axis_angle_to_matrix, matrix_to_axis_angle
from facerecon_torch.regression.cascade import Retract
from facerecon_torch.regression.moments import Moments
from facerecon_torch.structures import Camera, FaceParameters

__all__ = ["PosedState", "camera_of_pose", "pose_of_camera"]

POSE = 6
"""Numbers of a pose: axis and angle of the rotation, logarithm of the scale, translation."""


def pose_of_camera(camera: Camera) -> Float[Tensor, "n 6"]:
    """The rotation vector in rad, the logarithm of the scale in px/mm, and the translation in mm."""
    scale = camera.scale[:, None]
    return torch.cat([matrix_to_axis_angle(camera.rotation), scale.log(), camera.translation / scale], -1)


def camera_of_pose(pose: Float[Tensor, "n 6"]) -> Camera:
    """The camera of `pose_of_camera`."""
    scale = pose[:, 3].exp()
    return Camera(
        rotation=axis_angle_to_matrix(pose[:, :3]),
        scale=scale,
        translation=pose[:, 4:] * scale[:, None],
        degenerate=torch.zeros_like(scale, dtype=torch.bool),
    )


class PosedObserver(FaceObserver):
    """h(x, k) of an x that holds the camera: nothing is solved, the landmarks are projected by it."""

    def project(self, x: Float[Tensor, "n p"]) -> tuple[Camera, Float[Tensor, "n 66 2"]]:
        """The camera in x, and the landmarks that it sees in crop px."""
        parameters = FaceParameters.from_flat(x[:, :-POSE], self._n_identity)
        camera = camera_of_pose(x[:, -POSE:])
        points, _ = self._fitter.landmarks(parameters, camera)
        return camera, project(points, camera)


class PosedState(SplitState):
    """The samples of a split whose x also holds a camera: at first that of Eq. 6 for the first shape; the target is
    that of Eq. 6 for S*."""

    def __init__(self, samples: Samples, first: FirstStage) -> None:
        super().__init__(samples, first)
        self.retract = _ShapeRetraction(self.retract)

    def begin(self, blocks: tuple[str, ...]) -> None:
        """Start a cascade on some feature blocks."""
        super().begin(blocks)
        first = self.observe
        self.observe = self.first.observer(self._rows, blocks, first.first, PosedObserver)
        self._target = self._posed(first, self.samples.parameters.flat)
        self.x = self._posed(first, self.x)

    @staticmethod
    def _posed(observer: FaceObserver, shape: Float[Tensor, "n shape"]) -> Float[Tensor, "n p"]:
        camera, _ = observer.project(shape)
        return torch.cat([shape, pose_of_camera(camera)], -1)

    @property
    def target(self) -> Float[Tensor, "n p"]:
        """S* and its camera."""
        return self._target

    def shape(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "n shape"]:
        """The part of x that describes the shape."""
        return x[:, :-POSE]

    def moments(self) -> Moments | None:
        """None: moments are held for the targets of other methods, which have no pose."""
        return None


class _ShapeRetraction:
    """The gauge of the shape; the pose stays."""

    def __init__(self, retract: Retract) -> None:
        self._retract = retract

    def __call__(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
        return torch.cat([self._retract(x[:, :-POSE]), x[:, -POSE:]], -1)
