"""One face, or a few, as soon as possible: the work of a fixed small batch, on CUDA recorded once and replayed.

A small batch is thousands of tiny kernels, and launching them takes longer than running them; a CUDA graph launches all
of them at once.
"""

import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from facerecon_torch.cascade.checkpoint import FaceCascade
from facerecon_torch.cascade.crops import follow_faces
from facerecon_torch.cascade.reconstruct import KnownSize, Reconstruction, reconstruct_crops, start_fit
from facerecon_torch.fitting.crop import apply_affine
from facerecon_torch.runtime.timer import timed, untimed
from facerecon_torch.structures import Camera, Crop, FaceParameters, LandmarkFit

__all__ = ["LatencySession", "Replayed"]

_log = logging.getLogger(__name__)
_Tensors: TypeAlias = tuple[Tensor, ...]
_WARM_UP = 3  # runs before a recording, so that every library has allocated what it needs


class Replayed:
    """A function of CUDA tensors of fixed shapes, recorded at the first call as a CUDA graph and replayed from then on.

    On the CPU, and where recording fails (said once), it is the function itself. The function must do without the host:
    no branch on values, no tensor made from numbers. Not for several threads at once.
    """

    def __init__(self, name: str, function: Callable[..., _Tensors]) -> None:
        self._name = name
        self._function = function
        self._inputs: _Tensors = ()
        self._outputs: _Tensors = ()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._eager = False

    @property
    def is_recorded(self) -> bool:
        """Whether calls replay a graph."""
        return self._graph is not None

    def __call__(self, *inputs: Tensor) -> _Tensors:
        """Raises ValueError where the shapes or dtypes are not those of the recording."""
        if self._eager or inputs[0].device.type != "cuda":
            return self._function(*inputs)
        if self._graph is None and not self._record(inputs):
            return self._function(*inputs)
        for kept, given in zip(self._inputs, inputs, strict=True):
            if kept.shape != given.shape or kept.dtype != given.dtype:
                raise ValueError(
                    f"{self._name} was recorded for {kept.dtype} {tuple(kept.shape)}; got {given.dtype} "
                    f"{tuple(given.shape)}"
                )
            kept.copy_(given)
        if self._graph is not None:
            self._graph.replay()
        return tuple(output.clone() for output in self._outputs)  # the next replay writes over its own

    def _record(self, inputs: _Tensors) -> bool:
        device = inputs[0].device
        stream = torch.cuda.current_stream(device)
        kept = tuple(given.clone() for given in inputs)
        try:
            with untimed(), torch.cuda.device(device):
                side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    for _ in range(_WARM_UP):
                        self._function(*kept)
                torch.cuda.current_stream().wait_stream(side)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    outputs = self._function(*kept)
        except RuntimeError as error:
            with torch.cuda.device(device):
                torch.cuda.set_stream(stream)  # a recording that fails leaves its own as the current one
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            _log.warning("%s cannot be recorded as a CUDA graph and runs step by step: %s", self._name, reason)
            self._eager = True
            return False
        self._inputs, self._outputs, self._graph = kept, outputs, graph
        return True


class LatencySession:
    """`reconstruct_landmarks` for batches of exactly `batch` faces, on the device of `face`.

    The landmark fit and the cascade are two recordings (`Replayed`); between them the host reads where the crops lie.
    The first call takes as long as several. Not for several threads at once.
    """

    def __init__(self, face: FaceCascade, *, batch: int = 1, size: KnownSize | None = None) -> None:
        if batch < 1:
            raise ValueError(f"batch must be at least 1; got {batch}")
        self._face, self._batch, self._size = face, batch, size
        self._aim = Replayed("the landmark fit", self._follow)
        self._rest = Replayed("the cascade", self._reconstruct)

    @property
    def is_recorded(self) -> bool:
        """Whether everything that can be replayed is."""
        return self._aim.is_recorded and self._rest.is_recorded

    @torch.no_grad()
    def __call__(
        self, images: Sequence[Shaped[Tensor, "3 height width"]], landmarks: Float[Tensor, "n 66 2"]
    ) -> Reconstruction:
        """As `reconstruct_landmarks`. Raises ValueError for another number of faces than `batch`."""
        if not len(images) == len(landmarks) == self._batch:
            raise ValueError(
                f"this session is for {self._batch} faces at once; got {len(images)} images and {len(landmarks)} rows "
                "of landmarks"
            )
        model = self._face.model
        points = landmarks.to(model.device, model.dtype)
        with timed("fit"):
            aimed = self._aim(points)
        crops = self._face.cropper.crop(images, _camera(aimed[:4]))
        with timed("fit"):
            found = self._rest(crops.image, crops.to_crop, points, *aimed[4:])
        return Reconstruction(FaceParameters(*found[:2]), _camera(found[2:6]), *found[6:])

    def _follow(self, points: Tensor) -> _Tensors:
        """Landmarks -> the camera of the crop (4 tensors), then the landmark fit (9)."""
        camera, fit = follow_faces(points, self._face.crop_fitter, self._face.cropper)
        return (
            *_of_camera(camera),
            fit.parameters.identity,
            fit.parameters.expression,
            *_of_camera(fit.camera),
            fit.contour_vertices,
            fit.inner_residual,
            fit.contour_residual,
        )

    def _reconstruct(self, image: Tensor, to_crop: Tensor, points: Tensor, *fitted: Tensor) -> _Tensors:
        """Crops, landmarks and their fit -> the tensors of a Reconstruction, in their order."""
        contour_vertices, inner, outer = fitted[6:]
        fit = LandmarkFit(
            parameters=FaceParameters(*fitted[:2]),
            camera=_camera(fitted[2:6]),
            contour_vertices=contour_vertices,
            inner_residual=inner,
            contour_residual=outer,
        )
        inside = apply_affine(points, to_crop)
        start = start_fit(fit, inside, to_crop, self._face)
        answer = reconstruct_crops(Crop(image=image, to_crop=to_crop), inside, start, self._face, size=self._size)
        return (
            answer.parameters.identity,
            answer.parameters.expression,
            *_of_camera(answer.camera),
            answer.landmarks_3d,
            answer.landmarks_2d,
            answer.size,
        )


def _of_camera(camera: Camera) -> _Tensors:
    return camera.rotation, camera.scale, camera.translation, camera.degenerate


def _camera(tensors: _Tensors) -> Camera:
    rotation, scale, translation, degenerate = tensors
    return Camera(rotation=rotation, scale=scale, translation=translation, degenerate=degenerate)
