"""Builder of the map from Face Mesh's points to the 68 iBUG landmarks, from synthetic images of the training family.

    python -m facerecon_torch.commands.build_assets.mesh_points WORK_FOLDER
        [--subjects 60] [--images 8] [--output FILE]

WORK_FOLDER keeps the images. Every landmark is put on the line between two mesh points, at the pair and the share of
least squared distance to the true landmark over all images and their mirror images; left and right are each other's
mirror. What else was tried stands in docs/detectors.md.
"""

import argparse
import json
import logging
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.files import write_bytes
from facerecon_torch.images.read import read_pixels
from facerecon_torch.landmarks.mediapipe import FaceDetector, FaceMesh
from facerecon_torch.landmarks.mediapipe.mesh_points import MAP_FORMAT, map_file
from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER, MIRROR_66, N_INNER, N_LANDMARKS
from facerecon_torch.synthetic.dataset import SyntheticSet, render_set
from facerecon_torch.synthetic.spec import SyntheticSpec

__all__ = ["fit_pairs", "main", "mesh_mirror"]

_log = logging.getLogger(__name__)
_VERTICES = 468  # without the irises
_REACH_MM = (12.0, 30.0)  # from a landmark to the mesh points of its pair near frontal: inner points, contour
_FRONTAL_RAD = 0.2
_INNER_CORNERS = {60: 78, 64: 308}  # of the mouth, which the model's 66 landmarks lack: the mesh's own
_TOGETHER = 16
_Pair = tuple[int, int, float]


def detect_meshes(rendered: SyntheticSet) -> tuple[Float[Tensor, "n 468 2"], Bool[Tensor, "n"]]:
    """The mesh of every image in px, and whether one was found; images with several faces count as without."""
    detector, mesh = FaceDetector("short"), FaceMesh()
    meshes = torch.zeros(len(rendered), _VERTICES, 2, dtype=torch.float64)
    found = torch.zeros(len(rendered), dtype=torch.bool)
    for start in range(0, len(rendered), _TOGETHER):
        pictures = [read_pixels(path) for path in rendered.images[start : start + _TOGETHER]]
        faces = detector(pictures)
        own = [k for k, boxes in enumerate(faces) if len(boxes) == 1]
        boxes = torch.cat([faces[k].boxes for k in own])
        points, presence = mesh([pictures[k] for k in own], boxes, torch.cat([faces[k].points for k in own]))
        rows = torch.tensor(own) + start
        meshes[rows], found[rows] = points[:, :_VERTICES, :2], presence > 0.5
    return meshes, found


def mesh_mirror(frontal: Float[Tensor, "468 2"]) -> tuple[Int[Tensor, "468"], Bool[Tensor, "468"]]:
    """The vertex that stands opposite each one on a mean frontal mesh, and whether the two are each other's."""
    centred = frontal - frontal.mean(0)
    opposite = torch.cdist(centred * centred.new_tensor([-1.0, 1.0]), centred).argmin(1)
    return opposite, opposite[opposite] == torch.arange(len(frontal))


def fit_pairs(
    meshes: Float[Tensor, "n 468 2"], landmarks: Float[Tensor, "n 66 2"], yaw: Float[Tensor, "n"]
) -> list[_Pair]:
    """The pair of vertices of each landmark and the share of the way from the first to the second.

    Args:
        meshes: in mm in the image plane.
        landmarks: true ones, in the same frame.
        yaw: in rad.
    """
    flip = meshes.new_tensor([-1.0, 1.0])
    frontal = meshes[yaw.abs() < _FRONTAL_RAD].mean(0)
    opposite, mutual = mesh_mirror(frontal)
    seen = torch.cat([meshes, (meshes * flip)[:, opposite]])
    wanted = torch.cat([landmarks, (landmarks * flip)[:, list(MIRROR_66)]])
    near = torch.cat([yaw, yaw]).abs() < _FRONTAL_RAD
    middle, goals = seen[near].mean(0), wanted[near].mean(0)
    pairs: list[_Pair] = []
    for k in range(N_LANDMARKS):
        if MIRROR_66[k] < k:
            first, second, share = pairs[MIRROR_66[k]]
            pairs.append((int(opposite[first]), int(opposite[second]), share))
            continue
        close = (middle - goals[k]).norm(dim=1) < _REACH_MM[k >= N_INNER]
        pairs.append(_best_pair(seen, wanted[:, k], torch.nonzero(close & mutual)[:, 0]))
    return pairs


def _best_pair(seen: Float[Tensor, "n 468 2"], wanted: Float[Tensor, "n 2"], candidates: Int[Tensor, "m"]) -> _Pair:
    """With a, b the vertices and t the landmark, the share of least sum of squares is (t - a).(b - a) / |b - a|^2; all
    sums follow from products of vertices with each other and with the landmark."""
    points = seen[:, candidates]
    products = torch.einsum("nid,njd->ij", points, points)
    square, with_goal = products.diagonal(), torch.einsum("nid,nd->i", points, wanted)
    along = with_goal[None] - with_goal[:, None] - products + square[:, None]
    length = (square[None] + square[:, None] - 2 * products).clamp_min(1e-9)
    rest = (wanted.square().sum() - 2 * with_goal + square)[:, None]
    share = (along / length).clamp(0, 1)
    error = rest - 2 * share * along + share.square() * length
    first, second = divmod(int(error.argmin()), len(candidates))
    return int(candidates[first]), int(candidates[second]), round(float(share[first, second]), 4)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("folder", type=Path, metavar="WORK_FOLDER")
    parser.add_argument("--subjects", type=int, default=60)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--seed", type=int, default=7102)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, default=map_file())
    chosen = parser.parse_args(arguments)
    spec = SyntheticSpec(subjects=chosen.subjects, images_per_subject=chosen.images, seed=chosen.seed)
    rendered = render_set(spec, chosen.folder, workers=chosen.workers)
    meshes, found = detect_meshes(rendered)
    truth, scale = rendered.landmarks[found].double(), rendered.camera.scale[found, None, None].double()
    centre = truth.mean(1, keepdim=True)
    pairs = fit_pairs((meshes[found] - centre) / scale, (truth - centre) / scale, rendered.angles[found, 0])
    table = dict(zip(IBUG_OF_PAPER, pairs)) | {ibug: (own, own, 0.0) for ibug, own in _INNER_CORNERS.items()}
    about = f"pairs of mesh points and shares, fitted to {int(found.sum())} renders ({spec}, hash {spec.hash})"
    rows = ",\n  ".join(json.dumps(table[k]) for k in range(len(table)))
    text = f'{{\n "format": {json.dumps(MAP_FORMAT)},\n "about": {json.dumps(about)},\n "pairs": [\n  {rows}\n ]\n}}\n'
    write_bytes(chosen.output, text.encode())
    _log.info("%s: from %d images", chosen.output, int(found.sum()))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
