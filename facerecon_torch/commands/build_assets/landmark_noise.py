"""Builder of the table of dlib's landmark errors, measured on synthetic images of the training family.

    python -m facerecon_torch.commands.build_assets.landmark_noise WORK_FOLDER
        [--subjects 90] [--images 8] [--output FILE]

WORK_FOLDER keeps the images. Detection rates by yaw are logged and written into the JSON beside the table.
"""

import argparse
import logging
import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm

from facerecon_torch.images.read import read_image
from facerecon_torch.landmarks.dlib_detector import DlibDetector
from facerecon_torch.landmarks.scheme import N_INNER, N_LANDMARKS, to_paper66
from facerecon_torch.synthetic.dataset import SyntheticSet, render_set
from facerecon_torch.synthetic.noise_table import NOISE_FILE, NoiseTable, mirror_errors, turn_errors
from facerecon_torch.synthetic.spec import SyntheticSpec

__all__ = ["DetectionErrors", "detect_set", "detection_rates", "fit_noise_table", "main"]

_log = logging.getLogger(__name__)
_NODES_DEGREES = (0.0, 10.0, 20.0, 30.0, 40.0, 52.0)
_HALF_WIDTH_DEGREES = 7.5  # half-width of a node's triangular weight
_COMPONENTS = 16
_FEWEST = 10  # detections that a yaw node needs
_OUTLIER_DEVIATIONS = 5.0
_RATE_EDGES_DEGREES = (0, 10, 20, 30, 45, 60)
_FAR = 0.35  # share of the landmarks' extent: a detection farther off belongs to no face


@dataclass(frozen=True)
class DetectionErrors:
    """Errors of the detected faces of a set, in the table's frame (mm, mirrored to yaw >= 0)."""

    detected: Bool[Tensor, "n"]
    errors: Float[Tensor, "m 66 2"]
    yaw: Float[Tensor, "m"]


def detect_set(rendered: SyntheticSet, *, workers: int = 1, progress: bool = True) -> DetectionErrors:
    """The errors of dlib on every image of a set."""
    points = _detect_all(rendered, workers, progress)
    truth = rendered.landmarks
    extent = (truth.amax(1) - truth.amin(1)).amax(1)
    distance = (points - truth).norm(dim=2).mean(1)
    detected = distance < _FAR * extent  # False for NaN, which marks a missed face
    yaw, _, roll = rendered.angles[detected].unbind(1)
    flat = (points - truth)[detected] / rendered.camera.scale[detected, None, None] * torch.tensor([1.0, -1.0])
    errors = turn_errors(flat, -roll)
    errors = torch.where((yaw < 0)[:, None, None], mirror_errors(errors), errors)
    return DetectionErrors(detected, errors, yaw.abs())


def _detect_all(rendered: SyntheticSet, workers: int, progress: bool) -> Float[Tensor, "n 66 2"]:
    jobs = list(zip(rendered.images, rendered.landmarks.mean(1)))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        done = tqdm(pool.map(_detect_one, jobs, chunksize=8), total=len(jobs), desc="dlib", disable=not progress)
        return torch.stack(list(done))


def _detect_one(job: tuple[Path, Tensor]) -> Float[Tensor, "66 2"]:
    path, centre = job
    (faces,) = _detector().detect([read_image(path)])
    if not faces:
        return torch.full((N_LANDMARKS, 2), math.nan)
    points = torch.stack([to_paper66(face.points.float()) for face in faces])
    return points[(points.mean(1) - centre).norm(dim=1).argmin()]


@lru_cache(maxsize=1)
def _detector() -> DlibDetector:
    """The detector of this process."""
    return DlibDetector()


def detection_rates(rendered: SyntheticSet, detected: Bool[Tensor, "n"]) -> dict[str, dict[str, int | float]]:
    """The number and share of detected faces, by |yaw| in degrees."""
    yaw = rendered.angles[:, 0].abs() * (180 / math.pi)
    rates: dict[str, dict[str, int | float]] = {}
    for low, high in (*pairwise(_RATE_EDGES_DEGREES), (0, 20)):
        inside = (yaw >= low) & (yaw < high + (high == _RATE_EDGES_DEGREES[-1]))
        hits = int(detected[inside].sum())
        images = int(inside.sum())
        rates[f"{low}-{high}"] = {"images": images, "found": hits, "rate": round(hits / max(images, 1), 4)}
    return rates


def fit_noise_table(measured: DetectionErrors) -> tuple[NoiseTable, int]:
    """The table of the errors, and the number of images left out as gross failures.

    An image is left out where its deviation from the median of its yaw node exceeds the node's typical deviation more
    than 5 robust deviations. Near frontal, every image also counts as its mirror image. Raises ValueError for too few
    detections at a yaw node.
    """
    nodes = torch.tensor(_NODES_DEGREES) * (math.pi / 180)
    errors, yaw = _both_sides(measured, nodes)
    nearest = (yaw[:, None] - nodes).abs().argmin(1)
    counts = torch.bincount(nearest, minlength=len(nodes))
    if bool((counts < _FEWEST).any()):
        raise ValueError(f"every yaw node needs at least {_FEWEST} detections; they have {counts.tolist()}")
    medians = torch.stack([errors[nearest == k].median(0).values for k in range(len(nodes))])
    size = (errors - medians[nearest]).square().mean((1, 2)).sqrt()
    keep = torch.ones_like(size, dtype=torch.bool)
    for k in range(len(nodes)):
        here = nearest == k
        middle = size[here].median()
        spread = 1.4826 * (size[here] - middle).abs().median()
        keep[here] = size[here] <= middle + _OUTLIER_DEVIATIONS * spread
    dropped = int((~keep[: len(measured.yaw)]).sum())
    return _tabulate(errors[keep], yaw[keep], nodes), dropped


def _both_sides(measured: DetectionErrors, nodes: Tensor) -> tuple[Tensor, Tensor]:
    near = measured.yaw < nodes[1]
    errors = torch.cat([measured.errors, mirror_errors(measured.errors[near])])
    return errors, torch.cat([measured.yaw, -measured.yaw[near]])


def _tabulate(errors: Tensor, yaw: Tensor, nodes: Tensor) -> NoiseTable:
    weights = (1 - (yaw[:, None] - nodes).abs() / (math.radians(_HALF_WIDTH_DEGREES) * 2)).clamp_min(0)
    weights[:, -1] = torch.where(yaw > nodes[-1], 1.0, weights[:, -1])
    share = (weights / weights.sum(0)).double()
    flat = errors.double().flatten(1)
    mean = share.T @ flat
    membership = (weights / weights.sum(1, keepdim=True)).double()
    centred = flat - membership @ mean
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    components = directions[:_COMPONENTS]
    scores = centred @ components.T
    remainder = centred - scores @ components
    return NoiseTable(
        yaw=nodes.float(),
        mean=mean.reshape(-1, N_LANDMARKS, 2).float(),
        components=components.reshape(-1, N_LANDMARKS, 2).float(),
        deviation=(share.T @ scores.square()).sqrt().float(),
        remainder=(share.T @ remainder.square()).sqrt().reshape(-1, N_LANDMARKS, 2).float(),
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--subjects", type=int, default=90)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--seed", type=int, default=7101)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, default=NOISE_FILE)
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    spec = SyntheticSpec(subjects=chosen.subjects, images_per_subject=chosen.images, seed=chosen.seed)
    rendered = render_set(spec, chosen.folder, workers=chosen.workers)
    measured = detect_set(rendered, workers=chosen.workers)
    rates = detection_rates(rendered, measured.detected)
    for name, row in rates.items():
        _log.info("|yaw| %s degrees: %d of %d found (%.1f %%)", name, row["found"], row["images"], 100 * row["rate"])
    table, dropped = fit_noise_table(measured)
    median = measured.errors.norm(dim=2).median(1).values.median()
    inner = measured.errors[:, :N_INNER].norm(dim=2).median()
    _log.info("%d gross failures left out; median error %.2f mm, inner %.2f mm", dropped, float(median), float(inner))
    provenance: dict[str, object] = {
        "detector": "dlib frontal face detector and 68-point predictor",
        "spec": asdict(spec),
        "spec_hash": spec.hash,
        "detection_rates_by_abs_yaw_degrees": rates,
        "detections": int(measured.detected.sum()),
        "left_out_as_gross_failures": dropped,
        "yaw_nodes_degrees": list(_NODES_DEGREES),
        "median_inner_error_mm": round(float(inner), 3),
        "frame": "mm in the image plane, +x image right, +y up, turned back by roll, mirrored to yaw >= 0",
    }
    table.save(chosen.output, provenance)


if __name__ == "__main__":
    main()
