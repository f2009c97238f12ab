"""Errors of cascades on one real textured scan, photographed by the product and found by a real detector.

    python -m benchmarks.accuracy.scan scan=FOLDER cascade=RUN/cascade.safetensors,FILE output=scan.json

The folder holds `NAME.obj`, `NAME.jpg` and `NAME.ljson` with 68 points. Without `cascade` the shipped one is measured;
`cascade_model=FILE` is the face model of the cascades. Errors are distances in mm from the scan to the mesh within the
mask of the NoW protocol, after a similarity and after a rigid alignment; the size error is what the similarity mends.
Figures are means over the views: `views=front` is one, `views=turned` are 21 (yaw up to 30, pitch up to 12 degrees).
`picture=FILE` shows the scan and its distances after a similarity, 0 to 5 mm, to each method of the first cascade
in the first view.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.evaluation.pictures import draw_mesh
from facerecon_torch.evaluation.plots import colour_scale
from facerecon_torch.files import write_json
from facerecon_torch.images.write import save_png
from facerecon_torch.metrics.scan import SEVEN_POINTS, ScanErrors, scan_to_mesh

from ..keys import read_keys
from .baselines import SEVEN_ROWS, largest_face, shapes
from .scan_photo import Scan, photograph, read_scan, turned

__all__ = ["Errors", "draw_errors", "figures", "main", "measure_scan"]

Errors = dict[str, float]
_DEFAULTS = {
    "scan": "", "cascade": "", "cascade_model": "", "landmarks": "mediapipe", "views": "front", "output": "",
    "picture": "",
}  # fmt: skip
_VIEWS = {  # yaw and pitch in degrees
    "front": [(0.0, 0.0)],
    "turned": [(yaw, pitch) for yaw in (0.0, 10.0, 20.0, 30.0, -10.0, -20.0, -30.0) for pitch in (0.0, 12.0, -12.0)],
}
_UNITS = {"median": "mm", "mean": "mm", "rigid median": "mm", "rigid mean": "mm", "size": "%"}
_LIMIT_MM = 5.0
_TILE = 400  # px


def main(words: Sequence[str]) -> int:
    """Print the errors of mean face, landmark fit and every cascade, their medians, and write them.

    Raises:
        ValueError: an unknown key, or no scan.
        DetectorError: the detector cannot run.
    """
    keys = _DEFAULTS | read_keys(words, _DEFAULTS)
    if not keys["scan"]:
        raise ValueError("scan must be the folder of a scan; got nothing")
    if keys["views"] not in _VIEWS:
        raise ValueError(f"views must be {' or '.join(_VIEWS)}; got {keys['views']!r}")
    scan, report = read_scan(Path(keys["scan"])), dict[str, dict[str, Errors]]()
    for file in keys["cascade"].split(","):
        face = FaceReconstructor.from_pretrained(
            file or None, face_model=keys["cascade_model"] or None, detector=keys["landmarks"]
        )
        measured = [measure_scan(face, scan, view) for view in _VIEWS[keys["views"]]]
        if keys["picture"] and not report:
            save_png(draw_errors(scan, [similar for similar, _ in measured[0].values()]), keys["picture"])
        report[file or "shipped"] = _means([figures(one) for one in measured])
    methods = next(iter(report.values()))
    report["median"] = {
        method: {name: median(errors[method][name] for errors in report.values()) for name in _UNITS}
        for method in methods
    }
    sys.stdout.write(_table(report))
    if keys["output"]:
        write_json(Path(keys["output"]), report)
    return 0


def measure_scan(
    face: FaceReconstructor, scan: Scan, view: tuple[float, float] = (0.0, 0.0)
) -> dict[str, tuple[ScanErrors, ScanErrors]]:
    """The distances of mean face, landmark fit and cascade on the photograph of a scan, after a similarity and rigidly;
    `view` is the yaw and pitch of the scan on the photograph, in degrees.

    Raises:
        NoFaceError: the detector finds no face.
        ValueError: the face model has no triangles.
    """
    topology = face.face_model.topology
    if topology is None:
        raise ValueError("the cascade's face model must be whole; this one was restricted to some vertices")
    seven, points = topology.landmark_vertices[SEVEN_ROWS], scan.landmarks[list(SEVEN_POINTS)]
    picture = photograph(turned(scan, *view))
    landmarks = largest_face(face, picture)
    answers = {**shapes(face, landmarks), "cascade": face.reconstruct([picture], landmarks).vertices}

    def measure(mesh: Tensor, *, scale: bool) -> ScanErrors:
        return scan_to_mesh(scan.vertices, points, mesh, topology.triangles, mesh[seven], scale=scale)

    return {name: (measure(mesh, scale=True), measure(mesh, scale=False)) for name, (mesh,) in answers.items()}


def draw_errors(scan: Scan, errors: Sequence[ScanErrors]) -> Float[Tensor, "3 height width"]:
    """For each of `errors` the scan's face coloured by its distances, dark 0 and yellow 5 mm, grey outside of the
    mask."""
    inside = scan.vertices[errors[0].mask]
    middle, side = (inside.amax(0) + inside.amin(0)) / 2, float((inside.amax(0) - inside.amin(0))[:2].max()) * 1.25
    near = ((scan.vertices - middle)[:, :2].abs() <= side / 2).all(-1)
    triangles = scan.triangles[near[scan.triangles].all(-1)]
    used, rows = torch.unique(triangles, return_inverse=True)
    tiles = []
    for one in errors:
        colours = torch.full_like(scan.vertices, 0.75)
        colours[one.mask] = colour_scale(one.distances, _LIMIT_MM)
        tiles.append(draw_mesh(scan.vertices[used], rows, colours[used], tile=_TILE))
    return torch.cat(tiles, -1)


def figures(measured: dict[str, tuple[ScanErrors, ScanErrors]]) -> dict[str, Errors]:
    """The errors of every method, from its distances after a similarity and rigidly."""
    errors = {}
    for name, (similar, rigid) in measured.items():
        size = 100 * (1 / float(similar.alignment.scale) - 1)
        values = (similar.median, similar.mean, rigid.median, rigid.mean, size)
        errors[name] = dict(zip(_UNITS, map(float, values), strict=True))
    return errors


def _means(views: list[dict[str, Errors]]) -> dict[str, Errors]:
    return {method: {name: mean(view[method][name] for view in views) for name in _UNITS} for method in views[0]}


def _table(report: dict[str, dict[str, Errors]]) -> str:
    lines = [" | ".join(["cascade", "method", *(f"{name} ({unit})" for name, unit in _UNITS.items())])]
    for cascade, methods in report.items():
        lines += [
            " | ".join([cascade, method, *(f"{value:.3f}" for value in errors.values())])
            for method, errors in methods.items()
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
