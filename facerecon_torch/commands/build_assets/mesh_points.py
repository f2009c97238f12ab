"""Builder of the map from Face Mesh's points to the 68 iBUG landmarks, from synthetic images of the training family.

    python -m facerecon_torch.commands.build_assets.mesh_points WORK_FOLDER
        [--subjects 400] [--images 2] [--output FILE]

WORK_FOLDER keeps the images. Every landmark is a weighted sum of mesh points, with the weights of least squared
distance to the true landmark over all images and their mirror images; left and right are each other's mirror. What
else was tried stands in docs/detectors.md.
"""

import argparse
import logging
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.formats.checked_columns import save_columns
from facerecon_torch.images.read import read_pixels
from facerecon_torch.landmarks.mediapipe import FaceDetector, FaceMesh
from facerecon_torch.landmarks.mediapipe.mesh_points import MAP_FORMAT, N_MESH, map_file
from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER, MIRROR_66, N_LANDMARKS
from facerecon_torch.synthetic.dataset import SyntheticSet, render_set
from facerecon_torch.synthetic.spec import SyntheticSpec

__all__ = ["detect_meshes", "fit_weights", "main", "mesh_mirror"]

_log = logging.getLogger(__name__)
_SCATTER_MM = 1.0  # chosen on people of the shifted family: docs/detectors.md
_FRONTAL_RAD = 0.2
_INNER_CORNERS = {60: 78, 64: 308}  # of the mouth, which the model's 66 landmarks lack: the mesh's own
_TOGETHER = 16


def detect_meshes(rendered: SyntheticSet) -> tuple[Float[Tensor, "n 468 2"], Bool[Tensor, "n"]]:
    """The mesh of every image in px, and whether one was found; images with several faces count as without."""
    detector, mesh = FaceDetector("short"), FaceMesh()
    meshes = torch.zeros(len(rendered), N_MESH, 2, dtype=torch.float64)
    found = torch.zeros(len(rendered), dtype=torch.bool)
    for start in range(0, len(rendered), _TOGETHER):
        pictures = [read_pixels(path) for path in rendered.images[start : start + _TOGETHER]]
        faces = detector(pictures)
        own = [k for k, boxes in enumerate(faces) if len(boxes) == 1]
        if not own:
            continue
        boxes = torch.cat([faces[k].boxes for k in own])
        points, presence = mesh([pictures[k] for k in own], boxes, torch.cat([faces[k].points for k in own]))
        rows = torch.tensor(own) + start
        meshes[rows], found[rows] = points[:, :N_MESH, :2], presence > 0.5
    return meshes, found


def mesh_mirror(frontal: Float[Tensor, "468 2"]) -> tuple[Int[Tensor, "468"], Bool[Tensor, "468"]]:
    """The vertex that stands opposite each one on a mean frontal mesh, and whether the two are each other's."""
    centred = frontal - frontal.mean(0)
    opposite = torch.cdist(centred * centred.new_tensor([-1.0, 1.0]), centred).argmin(1)
    return opposite, opposite[opposite] == torch.arange(len(frontal))


def fit_weights(
    meshes: Float[Tensor, "n 468 2"], landmarks: Float[Tensor, "n 66 2"], yaw: Float[Tensor, "n"], scatter: float
) -> Float[Tensor, "66 468"]:
    """The weights of every landmark, which sum to one and are the same for x and y.

    With M the mesh and t the landmarks of an image, both from the mesh's mean point, W minimises
    sum |W M - t|^2 + scatter^2 |W|^2 per coordinate: the least expected square if every mesh point had an independent
    error of that size. Vertices without a mirror image have no weight.

    Args:
        meshes: in mm in the image plane.
        landmarks: true ones, in the same frame.
        yaw: in rad.
        scatter: mm.
    """
    flip = meshes.new_tensor([-1.0, 1.0])
    opposite, mutual = mesh_mirror(meshes[yaw.abs() < _FRONTAL_RAD].mean(0))
    seen = torch.cat([meshes, (meshes * flip)[:, opposite]])
    wanted = torch.cat([landmarks, (landmarks * flip)[:, list(MIRROR_66)]])
    middle = seen[:, mutual].mean(1, keepdim=True)
    rows, goals = (part.transpose(1, 2).flatten(0, 1) for part in (seen[:, mutual] - middle, wanted - middle))
    ridge = len(rows) * scatter**2 * torch.eye(rows.shape[1], dtype=rows.dtype)
    found = torch.linalg.solve(rows.T @ rows + ridge, rows.T @ goals).T  # [66, mutual]
    weights = meshes.new_zeros(N_LANDMARKS, meshes.shape[1])
    weights[:, mutual] = found + (1 - found.sum(1, keepdim=True)) / found.shape[1]  # the mean point added again
    return weights


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("folder", type=Path, metavar="WORK_FOLDER")
    parser.add_argument("--subjects", type=int, default=400)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--scatter", type=float, default=_SCATTER_MM)
    parser.add_argument("--seed", type=int, default=7102)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, default=map_file())
    chosen = parser.parse_args(arguments)
    spec = SyntheticSpec(subjects=chosen.subjects, images_per_subject=chosen.images, seed=chosen.seed)
    rendered = render_set(spec, chosen.folder, workers=chosen.workers)
    meshes, found = detect_meshes(rendered)
    truth, scale = rendered.landmarks[found].double(), rendered.camera.scale[found, None, None].double()
    centre = truth.mean(1, keepdim=True)
    frame = (meshes[found] - centre) / scale, (truth - centre) / scale
    weights = torch.zeros(len(IBUG_OF_PAPER) + len(_INNER_CORNERS), N_MESH, dtype=torch.float64)
    weights[list(IBUG_OF_PAPER)] = fit_weights(*frame, rendered.angles[found, 0], chosen.scatter)
    weights[list(_INNER_CORNERS), list(_INNER_CORNERS.values())] = 1.0
    about = f"fitted to {int(found.sum())} renders ({spec}, hash {spec.hash}), scatter {chosen.scatter} mm"
    save_columns(chosen.output, {"weights": weights.float()}, {"format": MAP_FORMAT, "about": about})
    _log.info("%s: from %d images", chosen.output, int(found.sum()))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
