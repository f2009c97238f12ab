"""Samples of a data set as training reads them: cached features in canonical crops, and the ground truth."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeAlias

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from tqdm import tqdm

from facerecon_torch.cascade.crops import ImageCropper, canonical_crops
from facerecon_torch.cascade.feature_cache import FeatureCache, new_table, write_crops
from facerecon_torch.data.face_set import FaceSet
from facerecon_torch.errors import DataFileError, ImageFileError
from facerecon_torch.features.hog.spec import HogSpec
from facerecon_torch.fitting.crop import CropSpec
from facerecon_torch.fitting.dense_fit import DenseFitter
from facerecon_torch.fitting.landmark_fit import FitSpec, LandmarkFitter
from facerecon_torch.images.loader import LoadedImage, decoded_ahead, read_content
from facerecon_torch.images.read import Pixels
from facerecon_torch.model.base import FaceModel
from facerecon_torch.runtime.lanes import side_by_side
from facerecon_torch.runtime.memory import CacheLocation
from facerecon_torch.runtime.ranks import SINGLE, GatherOrder, Ranks
from facerecon_torch.structures import Crop, FaceParameters

__all__ = ["Samples", "fit_meshes", "prepare_samples", "rows_of_rank"]

_log = logging.getLogger(__name__)
_BATCH = 32  # images cropped together, or fewer:
_BATCH_PIXELS = 100_000_000  # 0.3 GB of bytes
_AHEAD = 16  # images decoded ahead
_MESHES = 1024  # fitted together
_Job: TypeAlias = tuple[Int[Tensor, "m"], list[Pixels], slice]  # images, their numbers, and their rows of the table


@dataclass(frozen=True, kw_only=True)
class Samples(FeatureCache):
    """A feature cache with its ground truth: the samples of one set, or some of them, that this process holds.

    `parameters` are S*, `subjects` name the person of each image, `places` are the positions in the data set. `meshes`
    (M, true meshes in mm), `covered` (vertices that each scan holds) and `kinds` (class of each image) have a row for
    every place of the data set, on the device that they came on, and are never copied.

    `whole` is the set that these samples are the `rows` of; None: it is this one.
    """

    name: str
    parameters: FaceParameters
    subjects: Int[Tensor, "n"]
    places: Int[Tensor, "n"]
    meshes: Float[Tensor, "places vertices 3"]
    covered: Bool[Tensor, "places vertices"] | None = None
    kinds: tuple[str, ...] | None = None
    whole: "Samples | None" = None

    def __getitem__(self, rows: Int[Tensor, "some"]) -> "Samples":
        """The samples `rows`; tables are shared, and what was computed for `whole` serves them too."""
        return replace(
            self,
            landmarks=self.landmarks[rows.to(self.landmarks.device)],
            rows=self.rows[rows.to(self.rows.device)],
            parameters=self.parameters[rows],
            subjects=self.subjects[rows.to(self.subjects.device)],
            places=self.places[rows.to(self.places.device)],
            whole=self if self.whole is None else self.whole,
        )

    def order(self, ranks: Ranks = SINGLE) -> GatherOrder:
        """The order in which the samples of all processes stand in the data set."""
        return GatherOrder.of(self.places.to(self.landmarks.device), ranks)

    def true_meshes(
        self, part: slice, like: Tensor, vertices: Int[Tensor, "some"] | None = None
    ) -> Float[Tensor, "m some 3"]:
        """M of a part of the samples, all vertices or some, on the device and in the dtype of `like`."""
        rows = self.places[part].to(self.meshes.device)
        # One selection: whole rows of thousands of samples would be a copy of the table.
        at = rows if vertices is None else (rows[:, None], vertices.to(rows.device))
        return self.meshes[at].to(like.device).to(like.dtype)

    def covered_vertices(self, part: slice, device: torch.device) -> Bool[Tensor, "m vertices"] | None:
        """The vertices that the scans of a part of the samples hold; None if unknown."""
        return None if self.covered is None else self.covered[self.places[part].to(self.covered.device)].to(device)


def rows_of_rank(subjects: Int[Tensor, "n"], ranks: Ranks) -> Int[Tensor, "own"]:
    """The samples of this process: whole subjects, dealt out in turn; one subject's stand side by side."""
    numbers = torch.unique(subjects, return_inverse=True)[1]
    order = torch.argsort(numbers, stable=True)
    return order[numbers[order] % ranks.world == ranks.rank]


def prepare_samples(
    faces: FaceSet,
    model: FaceModel,
    *,
    fit: FitSpec,
    crop: CropSpec,
    hog: HogSpec,
    location: CacheLocation,
    dense: DenseFitter | None = None,
    workers: int | None = None,
    progress: bool = True,
    ranks: Ranks = SINGLE,
) -> Samples:
    """The samples of a set, of several processes each its own subjects.

    Images are read, cropped along the landmark fit `fit` and cached at `location`; all but decoding runs in batches on
    the model's device, on the CPU several side by side. If the set brings no g*, S* is fitted to the true meshes by
    `dense`. Unreadable images are logged and left out.

    Raises:
        DataFileError: none of the images can be read.
    """
    device, dtype = model.device, model.dtype
    fitter, cropper = LandmarkFitter(model, fit), ImageCropper(model, crop)
    own = rows_of_rank(faces.subjects, ranks)
    landmarks = torch.empty(len(own), *faces.landmarks.shape[1:], device=device, dtype=dtype)
    table = new_table(len(own), crop.size, hog, location)
    with tqdm(total=len(own), desc=f"crops, {faces.name}", unit="image", disable=not progress) as bar:
        decoded = _decoded([faces.images[i] for i in own.tolist()], workers, bar)
        kept = _cut(
            decoded,
            faces.landmarks[own],
            partial(canonical_crops, fitter=fitter, cropper=cropper),
            hog,
            table,
            landmarks,
        )
    if len(own) and not len(kept):
        raise DataFileError(f"{faces.name}: expected images that can be read; none of {len(own)} can")
    own = own[kept]
    return Samples(
        name=faces.name,
        landmarks=landmarks[: len(own)],
        table=table,
        rows=torch.arange(len(own), device=table.device),
        hog=hog,
        parameters=_true_parameters(faces, own, model, dense),
        subjects=faces.subjects[own],
        places=own.to(device),
        meshes=faces.meshes,
        covered=faces.covered,
        kinds=faces.kinds,
    )


def _cut(
    decoded: Iterator[tuple[Int[Tensor, "m"], list[Pixels]]],
    points: Float[Tensor, "n 66 2"],
    crop: Callable[[list[Pixels], Tensor], tuple[Crop, Tensor]],
    hog: HogSpec,
    table: Shaped[Tensor, "n *row"],
    landmarks: Float[Tensor, "n 66 2"],
) -> Int[Tensor, "kept"]:
    """The numbers of the decoded images in the order of the rows of `table` and `landmarks`, which are filled with
    their crops and with their `points` in crop px."""
    filled = 0

    def jobs() -> Iterator[_Job]:
        nonlocal filled
        for rows, images in decoded:
            part = slice(filled, filled + len(images))
            filled = part.stop
            yield rows, images, part

    def work(job: _Job) -> Int[Tensor, "m"]:
        rows, images, part = job
        crops, landmarks[part] = crop(images, points[rows].to(landmarks))
        write_crops(table[part], crops.image, hog)
        return rows

    return torch.cat([torch.arange(0), *side_by_side(jobs(), work, landmarks.device)])


def _true_parameters(
    faces: FaceSet, own: Int[Tensor, "own"], model: FaceModel, dense: DenseFitter | None
) -> FaceParameters:
    like = model.identity_mean
    if faces.parameters is not None:
        return faces.parameters[own].to(like.device, like.dtype)
    return fit_meshes(dense or DenseFitter(model), faces.meshes, own, like)


def fit_meshes(
    fit: DenseFitter, meshes: Float[Tensor, "places vertices 3"], rows: Int[Tensor, "n"], like: Tensor
) -> FaceParameters:
    """S* of some meshes of a table, on the device and in the dtype of `like`; few of them are copied at a time."""
    parts = torch.split(rows.to(meshes.device), _MESHES)
    return FaceParameters.cat([fit(meshes[part].to(like.device, like.dtype)) for part in parts])


def _decoded(
    files: list[Path], workers: int | None, bar: "tqdm[NoReturn]"
) -> Iterator[tuple[Int[Tensor, "m"], list[Pixels]]]:
    """Images with their positions in `files`, until they fill a batch or the memory that a batch may take; the next
    batch is decoded while this one is in use. Files that cannot be read are logged."""
    rows, batch, pixels = list[int](), list[Pixels](), 0
    with ThreadPoolExecutor(workers) as pool:
        for k, (_, image) in enumerate(decoded_ahead(files, pool, read_content, ahead=_AHEAD)):
            bar.update()
            if isinstance(image, LoadedImage):
                rows.append(k)
                batch.append(image.pixels)
                pixels += image.pixels.shape[-1] * image.pixels.shape[-2]
            elif isinstance(image.cause, ImageFileError):
                _log.error("left out: %s", image)
            else:
                raise image.cause
            if len(batch) == _BATCH or pixels >= _BATCH_PIXELS:
                yield torch.tensor(rows), batch
                rows, batch, pixels = [], [], 0
    if batch:
        yield torch.tensor(rows), batch
