"""Distances between a registration and its scan."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.landmarks.scheme import GROUPS_66, N_INNER
from facerecon_torch.model.topology import FaceTopology
from facerecon_torch.registration.scan.surface import ScanBatch

__all__ = ["eyelid_residual", "landmark_residual", "sample_face", "scan_distance"]


def sample_face(
    scans: ScanBatch, posed: Float[Tensor, "b V 3"], topology: FaceTopology, *, points: int, reach: float
) -> tuple[Float[Tensor, "b n 3"], Bool[Tensor, "b n"]]:
    """At most `points` valid cells of every scan, evenly spread over it, and which of them lie on the face.

    A cell is on the face if its closest point on the posed fitted mesh is at most `reach` mm away and on the
    `whole_vertices`: hair, ears, neck and clothes are not. Cells that only fill up smaller scans are not, either.
    """
    valid = scans.valid.flatten(1)
    rank = valid.cumsum(1)
    count = rank[:, -1:]
    step = torch.arange(points, device=valid.device)
    target = torch.where(count > points, step * count // points, step) + 1
    cell = torch.searchsorted(rank, target.contiguous()).clamp_max(valid.shape[1] - 1)
    chosen = scans.points.flatten(1, 2).gather(1, cell[..., None].expand(-1, -1, 3))
    closest = get_backend().closest_point(chosen, posed, topology.triangles)
    face = torch.zeros(posed.shape[1], dtype=torch.bool, device=posed.device)
    face[topology.whole_vertices] = True
    on_face = face[topology.triangles].all(1)[closest.triangle.clamp_min(0)]
    return chosen, (target <= count) & on_face & (closest.triangle >= 0) & (closest.distance <= reach)


def scan_distance(
    points: Float[Tensor, "b n 3"],
    on_face: Bool[Tensor, "b n"],
    vertices: Float[Tensor, "b V 3"],
    triangles: Int[Tensor, "T 3"],
) -> Float[Tensor, "b"]:
    """Median distance in mm from the scan points on the face to the mesh; NaN for a scan without any."""
    distance = get_backend().closest_point(points, vertices, triangles).distance
    return torch.where(on_face, distance, torch.nan).nanmedian(1).values


def landmark_residual(
    vertices: Float[Tensor, "b V 3"],
    landmark_vertices: Int[Tensor, "66"],
    labelled: Float[Tensor, "b 66 3"],
    lifted: Float[Tensor, "b 66 3"],
) -> Float[Tensor, "b"]:
    """Median distance in mm of the inner landmarks' vertices from the labelled points; from the lifted ones where a
    scan has no labelled point, NaN where it has neither."""
    placed = vertices[:, landmark_vertices[:N_INNER]]
    distances = [torch.linalg.vector_norm(placed - points[:, :N_INNER], dim=-1) for points in (labelled, lifted)]
    medians = [distance.nanmedian(1).values for distance in distances]
    return torch.where(torch.isfinite(medians[0]), medians[0], medians[1])


def eyelid_residual(
    vertices: Float[Tensor, "b V 3"], landmark_vertices: Int[Tensor, "66"], lifted: Float[Tensor, "b 66 3"]
) -> Float[Tensor, "b"]:
    """Median distance in mm, across the sensor's axis, of the 12 eyelid vertices from the lifted points; NaN without
    any."""
    rows = list(GROUPS_66["eyes"])
    offset = vertices[:, landmark_vertices[rows], :2] - lifted[:, rows, :2]
    median: Tensor = torch.linalg.vector_norm(offset, dim=-1).nanmedian(1).values
    return median
