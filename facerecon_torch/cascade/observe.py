"""Binds model, camera and features into the cascade's h(x, k)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.cascade.feature_cache import CropBank
from facerecon_torch.features.joint import JointSpec, joint_feature
from facerecon_torch.fitting.landmark_fit import LandmarkFitter
from facerecon_torch.geometry.projection import project
from facerecon_torch.regression.moments import Features, RowSource
from facerecon_torch.runtime.memory import UNBOUNDED, MemoryBudget, halve_on_out_of_memory
from facerecon_torch.structures import Camera, FaceParameters

__all__ = ["FaceObserver", "Observed", "View", "look", "select_blocks"]


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

    def at(self, rows: Int[Tensor, "rows"]) -> "Observed":
        """The samples `rows`; the bank is shared, not copied."""
        scale = None if self.scale is None else self.scale[rows]
        return Observed(self.landmarks[rows], self.camera[rows], self.bank.at(rows), scale)


class FaceObserver:
    """h(x, k) of a set of samples: joint features [n, d] of parameters x [n, p].

    For every x the camera is solved again (Eq. 6), with the contour as that camera sees it; then HOG is read around the
    projected landmarks (Section 3.3) and the displacements to the detected landmarks are taken (Eq. 8, 9). All in crop
    px. Features that `memory` has no room for come as a source, which reads them in chunks as often as it is asked.
    `first` are the features of stage 0, where they are known: all methods and folds start from the same x.
    """

    def __init__(
        self,
        fitter: LandmarkFitter,
        n_identity: int,
        observed: Observed,
        spec: JointSpec,
        *,
        first: Features | None = None,
        memory: MemoryBudget = UNBOUNDED,
    ) -> None:
        self._fitter = fitter
        self._n_identity = n_identity
        self._observed = observed
        self._spec = spec
        self._first = first
        self._memory = memory
        self._size: int | None = None  # samples described together, once it is known

    def view(self, x: Float[Tensor, "n p"]) -> View:
        """Camera and landmarks of parameters x."""
        seen, parameters = self._observed, FaceParameters.from_flat(x, self._n_identity)
        return look(self._fitter, parameters, seen.landmarks, seen.camera, seen.scale)

    def __call__(self, x: Float[Tensor, "n p"], stage: int) -> Features:
        if stage == 0 and self._first is not None:
            return self._first
        return self.features(self.view(x))

    def features(self, view: View) -> Features:
        """Eq. 10 for every sample: a matrix where it fits, else a source of its rows; only the matrix grows with the
        number of samples."""
        like = view.projected
        if len(like) * self._spec.length * like.element_size() > self._memory.features:
            return self.source(view)
        out = like.new_empty(len(like), self._spec.length)
        start = 0
        for chunk in self._chunks(view):
            out[start : start + len(chunk)] = chunk
            start += len(chunk)
        return out

    def source(self, view: View) -> RowSource:
        """The same, row by row whenever it is read."""
        return partial(self._chunks, view)

    def _chunks(self, view: View) -> Iterator[Float[Tensor, "m d"]]:
        parts = self._parts(len(view.projected), view.projected)
        if "hog" not in self._spec.blocks:
            yield from (self._described(part, None, view) for part in parts)
            return
        for part, table in self._observed.bank.read(parts, view.projected.device):
            yield self._described(part, table, view)

    def _parts(self, n: int, like: Tensor) -> Iterator[slice]:
        start = 0
        if self._size is None:
            each = self._observed.bank.row_bytes + self._spec.length * like.element_size()
            self._size = self._memory.chunk(each, like.device)
        while start < n:
            part = slice(start, min(start + self._size, n))
            yield part
            start = part.stop

    def _described(self, part: slice, table: Tensor | None, view: View) -> Float[Tensor, "m d"]:
        """Eq. 10 for a part of the samples, in halves where memory runs out: later parts are then smaller too."""
        like, bank, landmarks = view.projected, self._observed.bank, self._observed.landmarks

        def work(some: slice) -> Tensor:
            field = None if table is None else bank.describe(table[some], like)
            at = slice(part.start + some.start, part.start + some.stop)
            return joint_feature(field, landmarks[at], like[at], view.camera.scale[at], self._spec)

        length = part.stop - part.start
        pieces = halve_on_out_of_memory(work, range(length), length)
        if len(pieces) == 1:
            return pieces[0]
        self._size = len(pieces[-2])  # the last may be a rest
        return torch.cat(pieces)

    def with_blocks(self, blocks: tuple[str, ...], first: Features | None = None) -> "FaceObserver":
        """An observer of some blocks only; `first`: their features of stage 0, where they are known."""
        spec = replace(self._spec, blocks=blocks)
        return FaceObserver(self._fitter, self._n_identity, self._observed, spec, first=first, memory=self._memory)


def look(
    fitter: LandmarkFitter,
    parameters: FaceParameters,
    landmarks: Float[Tensor, "n 66 2"],
    camera: Camera,
    scale: Float[Tensor, "n"] | None = None,
) -> View:
    """The view of faces under `parameters`, its camera solved again from that of before (Eq. 6)."""
    camera, points, contour = fitter.refine(parameters, landmarks, camera, scale=scale)
    return View(points, project(points, camera), camera, contour)


def select_blocks(joint: Float[Tensor, "n d"], spec: JointSpec, blocks: tuple[str, ...]) -> Float[Tensor, "n e"]:
    """Some blocks of a joint feature of `spec`, in the order asked for; a view where one block, or all, is."""
    if blocks == tuple(spec.blocks):
        return joint
    parts = dict(zip(spec.blocks, torch.split(joint, list(spec.block_sizes), dim=1)))
    return parts[blocks[0]] if len(blocks) == 1 else torch.cat([parts[name] for name in blocks], dim=1)
