"""How well a registration met its scan."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.landmarks.scheme import GROUPS_66, N_INNER
from facerecon_torch.model.topology import FaceTopology
from facerecon_torch.registration.scan.surface import ScanBatch

__all__ = ["FaceSample", "eyelid_residual", "landmark_residual", "sample_face", "scan_distance"]


class FaceSample:
    """Scan points [b, n, 3] on the face; those not `used` stand in for points that a smaller scan does not have."""

    def __init__(self, points: Float[Tensor, "b n 3"], used: Bool[Tensor, "b n"]) -> None:
        self.points, self.used = points, used


def sample_face(
    scans: ScanBatch, posed: Float[Tensor, "b V 3"], topology: FaceTopology, *, points: int, reach: float
) -> FaceSample:
    """At most `points` valid cells of every scan, evenly spread over it, less those whose closest point on the posed
    fitted mesh is more than `reach` mm away or not on the face (`whole_vertices`): hair, ears, neck and clothes."""
    valid = scans.valid.flatten(1)
    rank = valid.cumsum(1)
    count = rank[:, -1:]
    step = torch.arange(points, device=valid.device)
    wanted = torch.where(count > points, step * count // points, step) + 1
    cell = torch.searchsorted(rank, wanted.contiguous()).clamp_max(valid.shape[1] - 1)
    chosen = scans.points.flatten(1, 2).gather(1, cell[..., None].expand(-1, -1, 3))
    closest = get_backend().closest_point(chosen, posed, topology.triangles)
    face = torch.zeros(posed.shape[1], dtype=torch.bool, device=posed.device)
    face[topology.whole_vertices] = True
    on_face = face[topology.triangles].all(1)[closest.triangle.clamp_min(0)]
    used = (wanted <= count) & on_face & (closest.triangle >= 0) & (closest.distance <= reach)
    return FaceSample(chosen, used)


def scan_distance(
    sample: FaceSample, vertices: Float[Tensor, "b V 3"], triangles: Int[Tensor, "T 3"]
) -> Float[Tensor, "b"]:
    """Median true distance in mm from the sampled scan points to the mesh; NaN for a scan without points."""
    distance = get_backend().closest_point(sample.points, vertices, triangles).distance
    return torch.where(sample.used, distance, torch.nan).nanmedian(1).values


def landmark_residual(
    vertices: Float[Tensor, "b V 3"],
    landmark_vertices: Int[Tensor, "66"],
    labelled: Float[Tensor, "b 66 3"],
    lifted: Float[Tensor, "b 66 3"],
) -> Float[Tensor, "b"]:
    """Median distance in mm of the inner landmarks' vertices from the labelled points or, of a scan without any, from
    the lifted ones; NaN without either."""
    there = vertices[:, landmark_vertices[:N_INNER]]
    apart = [torch.linalg.vector_norm(there - points[:, :N_INNER], dim=-1) for points in (labelled, lifted)]
    medians = [distance.nanmedian(1).values for distance in apart]
    return torch.where(torch.isfinite(medians[0]), medians[0], medians[1])


def eyelid_residual(
    vertices: Float[Tensor, "b V 3"], landmark_vertices: Int[Tensor, "66"], lifted: Float[Tensor, "b 66 3"]
) -> Float[Tensor, "b"]:
    """Median distance in mm, across the sensor's axis, of the 12 eyelid vertices from the lifted points; NaN without
    any."""
    rows = list(GROUPS_66["eyes"])
    apart = vertices[:, landmark_vertices[rows], :2] - lifted[:, rows, :2]
    median: Tensor = torch.linalg.vector_norm(apart, dim=-1).nanmedian(1).values
    return median
