"""Builder of the tables of landmark errors, one per detector, from synthetic images of the training family.

    python -m facerecon_torch.commands.build_assets.landmark_noise mediapipe WORK_FOLDER
    python -m facerecon_torch.commands.build_assets.landmark_noise dlib WORK_FOLDER
        [--subjects 90] [--images 8] [--output FILE]

WORK_FOLDER keeps the images. The convention of a detector, its mean error by yaw and pitch, is that on the renders. Its
scatter is that on the renders, reduced to what is published for photographs where renders are harder for it: a cascade
serves photographs. Detection rates by yaw are logged and written into the JSON beside the table.
"""

import argparse
import logging
import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm

from facerecon_torch.images.read import read_image
from facerecon_torch.landmarks.detector import LandmarkDetector
from facerecon_torch.landmarks.registry import build_detector
from facerecon_torch.landmarks.scheme import N_CONTOUR, N_INNER, N_LANDMARKS, to_paper66
from facerecon_torch.synthetic.dataset import SyntheticSet, render_set
from facerecon_torch.synthetic.noise_table import NoiseTable, mirror_errors, noise_file, turn_errors
from facerecon_torch.synthetic.spec import SyntheticSpec

__all__ = ["PUBLISHED", "DetectionErrors", "PublishedError", "detect_set", "detection_rates", "fit_noise_table", "main"]

_log = logging.getLogger(__name__)
_NODES_DEGREES = (0.0, 10.0, 20.0, 30.0, 40.0, 52.0)
_HALF_WIDTH_DEGREES = 7.5  # half-width of a node's triangular weight
_COMPONENTS = 16
_FEWEST = 10  # detections that a yaw node needs
_OUTLIER_DEVIATIONS = 5.0
_RATE_EDGES_DEGREES = (0, 10, 20, 30, 45, 60)
_EYE_DISTANCE_MM = 88.0  # of the outer corners in adults
_SCATTER_YAW_DEGREES = 30.0  # the scatter is compared up to there: photographs of the benchmarks seldom turn farther
_FAR = 0.35  # share of the landmarks' extent: a detection farther off belongs to no face


class PublishedError(NamedTuple):
    """Mean distance to hand-made points on photographs in the wild, in % of the distance of the outer eye corners."""

    inner: float
    contour: float
    source: str

    def scatter(self) -> tuple[float, float]:
        """The standard deviations of inner and contour points along one axis in mm, were the errors normal."""
        per_percent = 0.01 * _EYE_DISTANCE_MM / math.sqrt(math.pi / 2)
        return self.inner * per_percent, self.contour * per_percent


_IN_THE_WILD = "330 photographs in the wild with 68 hand-made points (iBUG 300-W)"
PUBLISHED = {
    "dlib": PublishedError(1.98, 4.10, f"dlib's 68 points on {_IN_THE_WILD}"),
    "mediapipe": PublishedError(2.48, 6.3, f"Face Mesh V2, pairs of its points learned on 50 of {_IN_THE_WILD}"),
}


@dataclass(frozen=True)
class DetectionErrors:
    """Errors of the detected faces of a set, in the table's frame (mm, mirrored to yaw >= 0)."""

    detected: Bool[Tensor, "n"]
    errors: Float[Tensor, "m 66 2"]
    yaw: Float[Tensor, "m"]
    pitch: Float[Tensor, "m"]


def detect_set(detector: str, rendered: SyntheticSet, *, workers: int = 1, progress: bool = True) -> DetectionErrors:
    """The errors of a detector on every image of a set."""
    points = _detect_all(detector, rendered, workers, progress)
    truth = rendered.landmarks
    extent = (truth.amax(1) - truth.amin(1)).amax(1)
    distance = (points - truth).norm(dim=2).mean(1)
    detected = distance < _FAR * extent  # False for NaN, which marks a missed face
    yaw, pitch, roll = rendered.angles[detected].unbind(1)
    flat = (points - truth)[detected] / rendered.camera.scale[detected, None, None] * torch.tensor([1.0, -1.0])
    errors = turn_errors(flat, -roll)
    errors = torch.where((yaw < 0)[:, None, None], mirror_errors(errors), errors)
    return DetectionErrors(detected, errors, yaw.abs(), pitch)


def _detect_all(detector: str, rendered: SyntheticSet, workers: int, progress: bool) -> Float[Tensor, "n 66 2"]:
    jobs = list(zip(rendered.images, rendered.landmarks.mean(1)))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        found = pool.map(partial(_detect_one, detector), jobs, chunksize=8)
        return torch.stack(list(tqdm(found, total=len(jobs), desc=detector, disable=not progress)))


def _detect_one(detector: str, job: tuple[Path, Tensor]) -> Float[Tensor, "66 2"]:
    path, centre = job
    (faces,) = _detector(detector).detect([read_image(path)])
    if not faces:
        return torch.full((N_LANDMARKS, 2), math.nan)
    points = torch.stack([to_paper66(face.points.float()) for face in faces])
    return points[(points.mean(1) - centre).norm(dim=1).argmin()]


@lru_cache(maxsize=1)
def _detector(name: str) -> LandmarkDetector:
    """The detector of this process."""
    return build_detector(name)


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


def fit_noise_table(
    measured: DetectionErrors, published: PublishedError | None = None
) -> tuple[NoiseTable, dict[str, object]]:
    """The table of the errors, and facts about it: the images left out as gross failures, and the scatter along one
    axis in mm, of inner and contour points, as measured and in the table.

    An image is left out where its deviation from the median of its yaw node exceeds the node's typical deviation more
    than 5 robust deviations. Near frontal, every image also counts as its mirror image. Where the measured scatter is
    above the published one, the table's is reduced to that. Raises ValueError for too few detections at a yaw node.
    """
    nodes = torch.tensor(_NODES_DEGREES) * (math.pi / 180)
    errors, yaw, pitch = _both_sides(measured, nodes)
    keep = _usual(errors, yaw, nodes)
    errors, yaw, pitch = errors[keep].double().flatten(1), yaw[keep], pitch[keep].double()
    weights = (1 - (yaw[:, None] - nodes).abs() / (math.radians(_HALF_WIDTH_DEGREES) * 2)).clamp_min(0)
    weights[:, -1] = torch.where(yaw > nodes[-1], 1.0, weights[:, -1])
    mean, slope = _convention(errors, pitch, weights.double())
    membership = (weights / weights.sum(1, keepdim=True)).double()
    scatter = errors - membership @ mean - pitch[:, None] * (membership @ slope)
    seen = _axis_scatter(scatter[yaw < math.radians(_SCATTER_YAW_DEGREES)])
    wanted = seen if published is None else tuple(map(min, seen, published.scatter()))
    factor = [wanted[0] / seen[0]] * (2 * N_INNER) + [wanted[1] / seen[1]] * (2 * N_CONTOUR)
    table = _tabulate(nodes, mean, slope, scatter * scatter.new_tensor(factor), (weights / weights.sum(0)).double())
    facts: dict[str, object] = {
        "left_out_as_gross_failures": int((~keep[: len(measured.yaw)]).sum()),
        "scatter_on_renders_mm": [round(value, 3) for value in seen],
        "scatter_of_the_table_mm": [round(value, 3) for value in wanted],
    }
    return table, facts


def _both_sides(measured: DetectionErrors, nodes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    near = measured.yaw < nodes[1]
    errors = torch.cat([measured.errors, mirror_errors(measured.errors[near])])
    return errors, torch.cat([measured.yaw, -measured.yaw[near]]), torch.cat([measured.pitch, measured.pitch[near]])


def _usual(errors: Float[Tensor, "n 66 2"], yaw: Float[Tensor, "n"], nodes: Float[Tensor, "k"]) -> Bool[Tensor, "n"]:
    """Whether each image is no gross failure."""
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
    return keep


def _convention(
    errors: Float[Tensor, "n 132"], pitch: Float[Tensor, "n"], weights: Float[Tensor, "n k"]
) -> tuple[Float[Tensor, "k 132"], Float[Tensor, "k 132"]]:
    """The weighted least squares line over pitch at every yaw node: its value at pitch 0 and its slope."""
    design = torch.stack([torch.ones_like(pitch), pitch], 1)
    normal = torch.einsum("nk,ni,nj->kij", weights, design, design)
    right = torch.einsum("nk,ni,nc->kic", weights, design, errors)
    mean, slope = torch.linalg.solve(normal, right).unbind(1)
    return mean, slope


def _axis_scatter(scatter: Float[Tensor, "n 132"]) -> tuple[float, float]:
    """The root mean square along one axis, of inner and contour points."""
    inner, contour = torch.split(scatter, [2 * N_INNER, 2 * N_CONTOUR], dim=1)
    return float(inner.square().mean().sqrt()), float(contour.square().mean().sqrt())


def _tabulate(
    nodes: Float[Tensor, "k"],
    mean: Float[Tensor, "k 132"],
    slope: Float[Tensor, "k 132"],
    scatter: Float[Tensor, "n 132"],
    share: Float[Tensor, "n k"],
) -> NoiseTable:
    _, _, directions = torch.linalg.svd(scatter, full_matrices=False)
    components = directions[:_COMPONENTS]
    scores = scatter @ components.T
    remainder = scatter - scores @ components
    return NoiseTable(
        yaw=nodes.float(),
        mean=mean.reshape(-1, N_LANDMARKS, 2).float(),
        slope=slope.reshape(-1, N_LANDMARKS, 2).float(),
        components=components.reshape(-1, N_LANDMARKS, 2).float(),
        deviation=(share.T @ scores.square()).sqrt().float(),
        remainder=(share.T @ remainder.square()).sqrt().reshape(-1, N_LANDMARKS, 2).float(),
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("detector", choices=tuple(PUBLISHED))
    parser.add_argument("folder", type=Path, metavar="WORK_FOLDER")
    parser.add_argument("--subjects", type=int, default=90)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--seed", type=int, default=7101)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, help="default: the table that the package brings")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    spec = SyntheticSpec(subjects=chosen.subjects, images_per_subject=chosen.images, seed=chosen.seed)
    rendered = render_set(spec, chosen.folder, workers=chosen.workers)
    measured = detect_set(chosen.detector, rendered, workers=chosen.workers)
    rates = detection_rates(rendered, measured.detected)
    for name, row in rates.items():
        _log.info("|yaw| %s degrees: %d of %d found (%.1f %%)", name, row["found"], row["images"], 100 * row["rate"])
    published, convention = PUBLISHED[chosen.detector], build_detector(chosen.detector).convention
    table, facts = fit_noise_table(measured, published)
    bias = table.mean[0].norm(dim=-1)
    facts["frontal_bias_mm"] = [round(float(part.mean()), 3) for part in torch.split(bias, [N_INNER, N_CONTOUR])]
    _log.info("%s", facts)
    provenance: dict[str, object] = {
        "detector": chosen.detector,
        "convention": convention,
        "spec": asdict(spec),
        "spec_hash": spec.hash,
        "detection_rates_by_abs_yaw_degrees": rates,
        "detections": int(measured.detected.sum()),
        "yaw_nodes_degrees": list(_NODES_DEGREES),
        "published_error_percent_of_outer_eye_distance": {"inner": published.inner, "contour": published.contour},
        "published_error_source": published.source,
        **facts,
        "frame": "mm in the image plane, +x image right, +y up, turned back by roll, mirrored to yaw >= 0",
    }
    table.save(chosen.output or noise_file(convention), provenance)


if __name__ == "__main__":
    main()
