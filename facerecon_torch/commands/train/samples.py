"""From a labelled set of files to what training reads: landmarks and HOG in canonical crops, and the ground truth."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from facerecon_torch.cascade.crops import ImageCropper, canonical_crops
from facerecon_torch.cascade.feature_cache import BankTable, CropBank
from facerecon_torch.commands.train.evaluate import Truth
from facerecon_torch.commands.train.everyone import Everyone
from facerecon_torch.data.face_set import FaceSet
from facerecon_torch.features.hog.spec import HogSpec
from facerecon_torch.fitting.crop import CropSpec
from facerecon_torch.fitting.dense_fit import fit_dense
from facerecon_torch.fitting.landmark_fit import FitSpec, LandmarkFitter
from facerecon_torch.images.read import Pixels, read_pixels
from facerecon_torch.model.base import FaceModel
from facerecon_torch.runtime.memory import BankPlace
from facerecon_torch.runtime.ranks import SINGLE, Ranks
from facerecon_torch.structures import FaceParameters

__all__ = ["Samples", "prepare_samples", "rows_of_rank"]

_BATCH = 32  # photographs cropped together, or fewer:
_BATCH_PIXELS = 100_000_000  # 0.3 GB of bytes
_AHEAD = 16  # photographs decoded ahead, as bytes
_MESHES = 1024  # fitted together


@dataclass(frozen=True)
class Samples:
    """One set, ready: landmarks in crop px and HOG of the crops, on the device of the model; the truth.

    `places` are the samples' positions in the data set (None: 0, 1, ...). Some rows of a set remember it: they are its
    rows `rows`, and what was computed for all of `whole` need not be computed for them.
    """

    name: str
    landmarks: Float[Tensor, "n 66 2"]
    bank: CropBank
    truth: Truth
    places: Int[Tensor, "n"] | None = None
    whole: "Samples | None" = None
    rows: Int[Tensor, "n"] | None = None

    def __len__(self) -> int:
        return len(self.landmarks)

    @property
    def subjects(self) -> Int[Tensor, "n"]:
        return self.truth.subjects

    def at(self, rows: Int[Tensor, "rows"]) -> "Samples":
        """The samples `rows`; the HOG bank and the meshes are shared, not copied."""
        of = self if self.whole is None else self.whole
        places = rows if self.places is None else self.places[rows]
        inside = rows if self.rows is None else self.rows[rows]
        return Samples(
            self.name, self.landmarks[rows.to(self.landmarks.device)], self.bank.at(rows), self.truth[rows],
            places, of, inside,
        )  # fmt: skip

    def everyone(self, ranks: Ranks = SINGLE) -> Everyone:
        """This set on all processes."""
        places = torch.arange(len(self)) if self.places is None else self.places
        return Everyone.of(places.to(self.landmarks.device), ranks)


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
    workers: int | None = None,
    progress: bool = True,
    place: BankPlace | None = None,
    keep: torch.dtype = torch.float16,
    ranks: Ranks = SINGLE,
) -> Samples:
    """Read, crop and describe the photographs of the set, of several processes each its own subjects, and fit S* to
    their true meshes where the set brings no g*.

    Everything but decoding runs in batches on the model's device. The crops' maps go to `place` (None: that device) in
    the dtype `keep`. Raises ImageFileError for a damaged picture.
    """
    device, dtype = model.device, model.dtype
    fitter, cropper = LandmarkFitter(model, fit), ImageCropper(model, crop)
    own = rows_of_rank(faces.subjects, ranks)
    landmarks = torch.empty(len(own), *faces.landmarks.shape[1:], device=device, dtype=dtype)
    table = BankTable(len(own), hog, place or BankPlace(device), keep=keep)
    bar = tqdm(total=len(own), desc=f"crops, {faces.name}", unit="image", disable=not progress)
    for part, images in _decoded([faces.images[i] for i in own.tolist()], workers):
        points = faces.landmarks[own[part]].to(device, dtype)
        crops, landmarks[part] = canonical_crops(images, points, fitter, cropper)
        table.put(part.start, crops.image)
        bar.update(len(images))
    bar.close()
    if not len(own):
        table.put(0, torch.empty(0, 3, crop.size, crop.size, device=device, dtype=dtype))
    truth = _truth(faces, own, model)
    return Samples(faces.name, landmarks, table.bank(), truth, own.to(device))


def _truth(faces: FaceSet, own: Int[Tensor, "own"], model: FaceModel) -> Truth:
    kinds = None if faces.kinds is None else tuple(faces.kinds[i] for i in own.tolist())
    like = model.identity_mean
    if faces.parameters is not None:
        star = faces.parameters[own].to(like.device, like.dtype)
        return Truth(faces.meshes, star, faces.subjects[own], faces.covered, kinds, own)
    parts = [fit_dense(model, faces.meshes[rows].to(like.device, like.dtype)) for rows in torch.split(own, _MESHES)]
    return Truth(faces.meshes, FaceParameters.cat(parts), faces.subjects[own], faces.covered, kinds, own)


def _decoded(files: list[Path], workers: int | None) -> Iterator[tuple[slice, list[Pixels]]]:
    """Decoded images in order, until they fill a batch or the memory that a batch may take; the next batch is decoded
    while this one is in use."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Pixels]] = deque(pool.submit(read_pixels, file) for file in files[:_AHEAD])
        held: list[Pixels] = []
        for k in range(len(files)):
            held.append(waiting.popleft().result())
            if k + _AHEAD < len(files):
                waiting.append(pool.submit(read_pixels, files[k + _AHEAD]))
            pixels = sum(image.shape[-1] * image.shape[-2] for image in held)
            if len(held) == _BATCH or pixels >= _BATCH_PIXELS or k + 1 == len(files):
                yield slice(k + 1 - len(held), k + 1), held
                held = []
