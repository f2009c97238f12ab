"""The observation h(x, k) of a cascade: model, camera and features bound into one design matrix."""

from collections.abc import Iterator
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.cascade.feature_cache import FeatureCache
from facerecon_torch.features.joint import JointSpec, joint_feature
from facerecon_torch.fitting.landmark_fit import LandmarkFitter
from facerecon_torch.geometry.projection import project
from facerecon_torch.regression.moments import Features, RowSource
from facerecon_torch.runtime.memory import UNBOUNDED, MemoryBudget, halve_on_out_of_memory
from facerecon_torch.structures import Camera, FaceParameters

__all__ = ["FaceObserver", "look", "select_blocks"]


class FaceObserver:
    """h(x, k) of cached faces: joint features [n, d] of parameters x [n, p].

    For every x the camera is solved again (Eq. 6), with the contour as that camera sees it; then HOG is read around the
    projected landmarks (Section 3.3) and the displacements to the detected landmarks are taken (Eq. 8, 9). All in crop
    px.

    Args:
        fitter: solves cameras.
        cache: the faces.
        camera: the camera of each face that the search for a new one starts from.
        spec: the feature blocks.
        n_identity: identity weights, which come first in x.
        first: the features of stage 0, if known.
        memory: features larger than its share come as a source, which computes them in chunks on every pass.

    Example:
        >>> observer = FaceObserver(fitter, cache, fit.camera, JointSpec(), n_identity=model.n_identity)
        >>> features = observer(fit.parameters.flat, 0)
    """

    def __init__(
        self,
        fitter: LandmarkFitter,
        cache: FeatureCache,
        camera: Camera,
        spec: JointSpec,
        *,
        n_identity: int,
        first: Features | None = None,
        memory: MemoryBudget = UNBOUNDED,
    ) -> None:
        self._fitter, self._cache, self._camera, self._spec = fitter, cache, camera, spec
        self._n_identity, self._memory = n_identity, memory
        self.first = first
        self._chunk_size: int | None = None  # samples described together, once it is known

    def __call__(self, x: Float[Tensor, "n p"], stage: int) -> Features:
        return self.first if stage == 0 and self.first is not None else self.features(x)

    def features(self, x: Float[Tensor, "n p"]) -> Features:
        """Eq. 10 for every sample: a matrix if it fits, else a source of its rows."""
        if len(x) * self._spec.length * x.element_size() > self._memory.features:
            return self.source(x)
        matrix, start = x.new_empty(len(x), self._spec.length), 0
        for chunk in self.source(x)():
            matrix[start : start + len(chunk)] = chunk
            start += len(chunk)
        return matrix

    def source(self, x: Float[Tensor, "n p"]) -> RowSource:
        """Eq. 10 in chunks of rows, computed on every pass; the camera is solved here, once."""
        camera, projected = self.project(x)
        return partial(self._chunks, projected, camera.scale)

    def project(self, x: Float[Tensor, "n p"]) -> tuple[Camera, Float[Tensor, "n 66 2"]]:
        """The camera of every sample, solved again, and the landmarks that it sees in crop px."""
        parameters = FaceParameters.from_flat(x, self._n_identity)
        camera, _, projected = look(self._fitter, parameters, self._cache.landmarks, self._camera)
        return camera, projected

    def _chunks(self, projected: Float[Tensor, "n 66 2"], scale: Float[Tensor, "n"]) -> Iterator[Float[Tensor, "m d"]]:
        parts = self._parts(projected)
        if "hog" not in self._spec.blocks:
            yield from (self._chunk(part, None, projected[part], scale[part]) for part in parts)
            return
        for part, table in self._cache.read(parts, projected.device):
            yield self._chunk(part, table, projected[part], scale[part])

    def _parts(self, projected: Float[Tensor, "n 66 2"]) -> Iterator[slice]:
        if self._chunk_size is None:
            numbers = self._spec.length * projected.element_size()
            row = self._cache.table[:1]
            each = row.element_size() * row.shape[1:].numel() + numbers
            self._chunk_size = self._memory.chunk(each, projected.device)
        start, n = 0, len(projected)
        while start < n:
            part = slice(start, min(start + self._chunk_size, n))
            yield part
            start = part.stop

    def _chunk(
        self, part: slice, table: Tensor | None, projected: Float[Tensor, "m 66 2"], scale: Float[Tensor, "m"]
    ) -> Float[Tensor, "m d"]:
        """Eq. 10 for a part of the samples, in halves if memory runs out: later parts are then smaller too."""
        landmarks = self._cache.landmarks[part]

        def describe(rows: slice) -> Tensor:
            field = None if table is None else self._cache.field(table[rows], projected)
            return joint_feature(field, landmarks[rows], projected[rows], scale[rows], self._spec)

        pieces = halve_on_out_of_memory(describe, range(len(projected)), len(projected))
        if len(pieces) == 1:
            return pieces[0]
        self._chunk_size = len(pieces[-2])  # the last may be a rest
        return torch.cat(pieces)


def look(
    fitter: LandmarkFitter, parameters: FaceParameters, landmarks: Float[Tensor, "n 66 2"], camera: Camera
) -> tuple[Camera, Float[Tensor, "n 66 3"], Float[Tensor, "n 66 2"]]:
    """The camera of faces, solved again from `camera` (Eq. 6), and their landmarks in mm (model frame) and in crop
    px."""
    camera, points, _ = fitter.refine(parameters, landmarks, camera)
    return camera, points, project(points, camera)


def select_blocks(joint: Float[Tensor, "n d"], spec: JointSpec, blocks: tuple[str, ...]) -> Float[Tensor, "n e"]:
    """Some blocks of a joint feature of `spec`, in the order asked for; a view where one block, or all, is."""
    if blocks == tuple(spec.blocks):
        return joint
    parts = dict(zip(spec.blocks, torch.split(joint, list(spec.block_sizes), dim=1)))
    return parts[blocks[0]] if len(blocks) == 1 else torch.cat([parts[name] for name in blocks], dim=1)
