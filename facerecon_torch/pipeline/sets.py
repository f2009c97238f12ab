"""The labelled sets that a run asks for."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import platformdirs
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from facerecon_torch.data.face_set import FaceSet
from facerecon_torch.data.synthetic.dataset import SyntheticSet, render_set
from facerecon_torch.data.synthetic.noise_table import sample_landmark_noise
from facerecon_torch.data.synthetic.spec import FAMILIES, SyntheticSpec
from facerecon_torch.images.read import read_image
from facerecon_torch.landmarks.detector import build_detector, choose_faces
from facerecon_torch.landmarks.scheme import to_paper66
from facerecon_torch.pipeline.specs import DataSpec, LandmarkSourceSpec, RuntimeSpec, require_device

__all__ = ["load_sets", "synthetic_folder"]

_log = logging.getLogger(__name__)


def synthetic_folder(spec: SyntheticSpec, root: str | None) -> Path:
    """Where a rendered set is kept: below `root`, or the user's cache folder ($FACERECON_CACHE)."""
    base = root or os.environ.get("FACERECON_CACHE") or platformdirs.user_cache_dir("facerecon_torch")
    return Path(base) / "synthetic" / f"{spec.family}-{spec.hash}"


def load_sets(
    data: DataSpec, landmarks: LandmarkSourceSpec, runtime: RuntimeSpec, *, names: Sequence[str] = FAMILIES
) -> dict[str, FaceSet]:
    """Those of the sets `train`, `test` and `shifted` that are named and have subjects, rendered if they are not there
    yet."""
    sizes: dict[str, tuple[int, int]] = {
        "train": (data.train_subjects, data.train_images),
        "test": (data.test_subjects, data.test_images),
        "shifted": (data.shifted_subjects, data.shifted_images),
    }
    sets: dict[str, FaceSet] = {}
    for family, (subjects, images) in sizes.items():
        if family not in names or not subjects or not images:
            continue
        spec = SyntheticSpec(subjects=subjects, images_per_subject=images, seed=data.seed, family=family)
        folder = synthetic_folder(spec, data.root)
        rendered = render_set(spec, folder, workers=runtime.workers, progress=runtime.progress)
        sets[family] = _face_set(family, rendered, landmarks, runtime)
    return sets


def _face_set(name: str, rendered: SyntheticSet, source: LandmarkSourceSpec, runtime: RuntimeSpec) -> FaceSet:
    keep = torch.arange(len(rendered))
    if source.source == "truth":
        points = rendered.landmarks
    elif source.source == "noise":
        # the set's own hash: the same landmarks in every run, others in every set
        generator = torch.Generator().manual_seed(int(rendered.spec.hash, 16) % 2**62 + runtime.seed)
        yaw, _, roll = rendered.angles.unbind(-1)
        points = rendered.landmarks + sample_landmark_noise(yaw, roll, rendered.camera.scale, generator)
    else:
        points, found = _detected(rendered, source, runtime)
        keep = torch.nonzero(found).flatten()
        _log.info("%s: landmarks found in %d of %d images; the others are left out", name, len(keep), len(rendered))
    images = tuple(rendered.images[i] for i in keep.tolist())
    return FaceSet(name, images, rendered.subjects[keep], points[keep], rendered.vertices[keep])


def _detected(
    rendered: SyntheticSet, source: LandmarkSourceSpec, runtime: RuntimeSpec
) -> tuple[Float[Tensor, "n 66 2"], Tensor]:
    """A real detector's landmarks of every image, NaN where it finds no face."""
    detector = build_detector(source.source, **source.options(require_device(runtime.device)))
    points = torch.full_like(rendered.landmarks, torch.nan)
    for k, path in enumerate(tqdm(rendered.images, desc="landmarks", unit="image", disable=not runtime.progress)):
        found = detector.detect(read_image(path), path=path)
        if found:
            points[k] = to_paper66(choose_faces(found, "largest")[0].points[None])[0]
    return points, torch.isfinite(points).all(-1).all(-1)
