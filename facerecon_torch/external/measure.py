"""Errors of methods per image: scan-to-mesh, correspondences, landmarks and regions, under every alignment."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from facerecon_torch.external.methods import FaceGroup, MethodFaces
from facerecon_torch.external.truth import Truth
from facerecon_torch.geometry.align import align_similarity
from facerecon_torch.metrics.landmarks import landmark_nme
from facerecon_torch.metrics.regions import mesh_to_scan, region_errors, surface_quality
from facerecon_torch.metrics.scan import SCAN_ALIGNMENTS, ScanSetErrors, face_mask, measured_again, scans_to_meshes
from facerecon_torch.metrics.vertex_error import vertex_errors

__all__ = ["ALIGNMENT_TEXTS", "MethodErrors", "measure", "upright"]

ALIGNMENT_TEXTS = {
    "none": "none: as the method gave it",
    "rigid": "rigid: on 7 points, then ICP, size kept",
    "similarity": "similarity: on 7 points, then ICP",
}
"""The alignments of scan-to-mesh distances, in words. Errors on correspondences are aligned on the vertices instead."""
_TOGETHER = 16  # images measured at once
_NEAR = 1.5  # times the size of a face


@dataclass(frozen=True)
class MethodErrors:
    """Errors of one method, NaN for images without.

    `columns` are named by their parts: `scan_ALIGNMENT_STATISTIC_VERTICES` (mm; median, mean, std; all, covered),
    `mae_ALIGNMENT_VERTICES` (mm, on correspondences), `size_percent` (of the face inside the mask against the scan, by
    the similarity), `size_vertices_percent` (on correspondences), `nme` (AFLW2000's), `region_NAME` (mm, REALY-style),
    `chamfer` (mm), `normal_degrees` and `complete_percent` (FaceScape-style). `mirrored` marks meshes that were given
    with y downwards, `metres` those given in metres.
    """

    name: str
    columns: Mapping[str, Float[Tensor, "images"]]
    mirrored: Bool[Tensor, "images"]
    metres: Bool[Tensor, "images"]

    def present(self) -> Bool[Tensor, "images"]:
        """The images with any error."""
        if not self.columns:
            return torch.zeros_like(self.mirrored)
        return torch.stack([torch.isfinite(column) for column in self.columns.values()]).any(0)


def measure(faces: MethodFaces, truth: Truth, *, regions: bool = True) -> MethodErrors:
    """The errors of a method's faces.

    Args:
        faces: of the method.
        truth: of the same images.
        regions: whether errors by region and FaceScape-style measures are taken too.

    Example:
        >>> measure(external_faces(system, truth), truth).columns["scan_similarity_median_all"].nanmean()
    """
    columns: dict[str, Tensor] = {}
    mirrored, metres = torch.zeros(2, len(truth), dtype=torch.bool)

    def put(places: Sequence[int], values: Mapping[str, Tensor]) -> None:
        for name, column in values.items():
            own = columns.setdefault(name, torch.full((len(truth),), torch.nan, dtype=torch.float64))
            own[list(places)] = column.detach().cpu().double()

    for group in faces.groups:
        for rows, batch in _batches(group, truth):
            part, flipped = upright(group.only(rows), batch["landmarks"])
            part, metric = in_millimetres(part, batch["landmarks"])
            mirrored[list(part.places)], metres[list(part.places)] = flipped, metric
            put(part.places, _scan_columns(part, truth, batch, regions))
        if group.corresponds and truth.model is not None:
            put(group.places, _vertex_columns(group, truth))
    if truth.points68 is not None and bool(torch.isfinite(faces.image_points).any()):
        put(range(len(truth)), {"nme": landmark_nme(faces.image_points.double(), truth.points68.double())})
    return MethodErrors(faces.name, columns, mirrored, metres)


def _batches(group: FaceGroup, truth: Truth) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """Rows of the group, and the scans of their images."""
    at = {place: row for row, place in enumerate(group.places)}
    for places, batch in truth.batches(group.places, _TOGETHER):
        yield [at[place] for place in places], batch


def upright(group: FaceGroup, landmarks: Float[Tensor, "m 7 3"]) -> tuple[FaceGroup, Bool[Tensor, "m"]]:
    """The meshes, mirrored where their y runs downwards, as in an image: the seven points then fit better.

    Args:
        group: some meshes.
        landmarks: the seven points of the true surfaces.

    Returns:
        The meshes, and which of them were mirrored.
    """
    flip = group.seven.new_tensor([1.0, -1.0, 1.0])

    def misfit(seven: Tensor) -> Tensor:
        placed = align_similarity(seven, landmarks).apply(seven)
        return (placed - landmarks).square().sum((-2, -1))

    flipped = misfit(group.seven * flip) < misfit(group.seven)
    sign = torch.where(flipped[:, None, None], flip, torch.ones_like(flip))
    return replace(group, vertices=group.vertices * sign, seven=group.seven * sign), flipped


def in_millimetres(group: FaceGroup, landmarks: Float[Tensor, "m 7 3"]) -> tuple[FaceGroup, Bool[Tensor, "m"]]:
    """The meshes in mm, and which of them were given in metres, as systems built on FLAME write them: their seven
    points are a thousandth of the true ones, within a factor of 1.5."""
    ratio = align_similarity(group.seven, landmarks).scale / 1000
    metres = (ratio > 1 / _NEAR) & (ratio < _NEAR)
    unit = torch.where(metres, 1000.0, 1.0).to(group.vertices)[:, None, None]
    return replace(group, vertices=group.vertices * unit, seven=group.seven * unit.to(group.seven)), metres


def _scan_columns(group: FaceGroup, truth: Truth, batch: Mapping[str, Tensor], regions: bool) -> dict[str, Tensor]:
    points, marks, valid = batch["points"], batch["landmarks"], batch["valid"]
    covered = valid & batch["covered"]
    partly = any(not bool(truth.scans[k].covered.all()) for k in range(len(truth)))
    columns: dict[str, Tensor] = {}
    for align in SCAN_ALIGNMENTS:
        errors = scans_to_meshes(
            points, marks, group.vertices, group.triangles, group.seven, counted=covered, align=align
        )
        if partly:
            columns |= _statistics(errors, align, "covered")
            whole = valid & face_mask(points, marks)
            errors = measured_again(errors, points, group.vertices, group.triangles, whole)
        columns |= _statistics(errors, align, "all")
    columns["size_percent"] = 100 * (1 / errors.alignment.scale - 1)
    if regions:
        columns |= _region_columns(group, truth, batch, errors)
    return columns


def _statistics(errors: ScanSetErrors, align: str, vertices: str) -> dict[str, Tensor]:
    values = {"median": errors.median, "mean": errors.mean, "std": errors.deviation}
    return {f"scan_{align}_{name}_{vertices}": value for name, value in values.items()}


def _region_columns(
    group: FaceGroup, truth: Truth, batch: Mapping[str, Tensor], errors: ScanSetErrors
) -> dict[str, Tensor]:
    points, marks = batch["points"], batch["landmarks"]
    regions = region_errors(points, marks, group.vertices, group.triangles, errors)
    placed = errors.alignment.apply(group.vertices)
    backward = torch.full_like(errors.mean, torch.nan)
    for row, place in enumerate(group.places):
        scan = truth.scans[place]
        if len(scan.triangles):
            backward[row] = mesh_to_scan(
                placed[row], group.triangles, scan.vertices.double(), scan.triangles, scan.landmarks
            )
    quality = surface_quality(errors, batch["normals"], group.vertices, group.triangles, backward)
    return {f"region_{name}": value for name, value in regions.items()} | vars(quality)


def _vertex_columns(group: FaceGroup, truth: Truth) -> dict[str, Tensor]:
    """Errors on correspondences, aligned on the measured vertices."""
    model = truth.model
    if model is None:
        raise ValueError("errors on correspondences need true meshes of the model")
    places = list(group.places)
    meshes = model.meshes[places]
    masks = {"all": None} if model.covered is None else {"all": None, "covered": model.covered[places]}
    columns: dict[str, Tensor] = {}
    for name, known in masks.items():
        for align in SCAN_ALIGNMENTS:
            error = vertex_errors(group.vertices.to(meshes), meshes, align, rows=model.rows, known=known)
            columns[f"mae_{align}_{name}"] = error.mae
            columns["size_vertices_percent"] = error.size_error_percent
    return columns
