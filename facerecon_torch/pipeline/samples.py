"""From a labelled set of files to what training reads: landmarks and HOG in canonical crops, and the ground truth."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from facerecon_torch.data.face_set import FaceSet
from facerecon_torch.features.hog_spec import HogSpec
from facerecon_torch.fitting.coefficients import FitSpec, LandmarkFitter
from facerecon_torch.fitting.crop import CropSpec, FaceCropper
from facerecon_torch.fitting.dense import fit_dense
from facerecon_torch.images.read import read_image
from facerecon_torch.model.protocol import FaceModel
from facerecon_torch.pipeline.crop_bank import CropBank, build_bank, join_banks
from facerecon_torch.pipeline.crops import canonical_crops
from facerecon_torch.pipeline.evaluate import Truth

__all__ = ["Samples", "prepare_samples"]

_BATCH = 32  # photographs decoded and cropped together
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Samples:
    """One set, ready: landmarks in crop px, HOG of the crops, truth on the device of the model."""

    name: str
    landmarks: Float[Tensor, "n 66 2"]
    bank: CropBank
    truth: Truth

    def __len__(self) -> int:
        return len(self.landmarks)

    @property
    def subjects(self) -> Int[Tensor, "n"]:
        return self.truth.subjects

    @property
    def n_subjects(self) -> int:
        return int(torch.unique(self.subjects).numel())

    def at(self, rows: Int[Tensor, "rows"]) -> "Samples":
        """The samples `rows`; the HOG bank is shared, not copied."""
        return Samples(self.name, self.landmarks[rows], self.bank.at(rows), self.truth[rows])


def prepare_samples(
    faces: FaceSet,
    model: FaceModel,
    *,
    fit: FitSpec,
    crop: CropSpec,
    hog: HogSpec,
    workers: int | None = None,
    progress: bool = True,
) -> Samples:
    """Read, crop and describe every photograph of the set, and fit S* to its true meshes where it brings no g*.

    Everything but decoding runs in batches on the model's device. Raises ImageFileError for a damaged picture.
    """
    device, dtype = model.device, model.dtype
    fitter, cropper = LandmarkFitter(model, fit), FaceCropper(model, crop)
    moved: list[Tensor] = []
    banks: list[CropBank] = []
    batches = list(torch.split(torch.arange(len(faces)), _BATCH))
    bar = tqdm(total=len(faces), desc=f"crops, {faces.name}", unit="image", disable=not progress)
    for rows, images in _decoded(faces.images, batches, workers):
        points = faces.landmarks[rows].to(device, dtype)
        pictures = [image.to(device, dtype) for image in images]
        crops, landmarks = canonical_crops(pictures, points, fitter, cropper)
        moved.append(landmarks)
        banks.append(build_bank(crops.image, hog))
        bar.update(len(rows))
    bar.close()
    meshes = faces.meshes.to(device, dtype)
    star = fit_dense(model, meshes) if faces.parameters is None else faces.parameters.to(device, dtype)
    truth = Truth(meshes, star, faces.subjects, faces.covered, faces.kinds)
    return Samples(faces.name, torch.cat(moved), join_banks(banks), truth)


def _decoded(
    files: tuple[Path, ...], batches: list[Tensor], workers: int | None
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Batches of decoded images; the next batch is decoded while this one is in use."""
    with ThreadPoolExecutor(workers) as pool:
        waiting = [[pool.submit(read_image, files[i]) for i in rows.tolist()] for rows in batches[:2]]
        for k, rows in enumerate(batches):
            if k + 2 < len(batches):
                waiting.append([pool.submit(read_image, files[i]) for i in batches[k + 2].tolist()])
            yield rows, [job.result() for job in waiting[k]]
            waiting[k] = []
