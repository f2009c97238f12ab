"""Distance from raw scans to reconstructed meshes without correspondence, as in the NoW benchmark.

A mesh is aligned on 7 points, then moved to the least sum of squared scan-to-mesh distances. The remaining distances
are measured inside a sphere around the face. `similarity` may change the size of the mesh; `rigid` keeps it, which is
the metrical variant; `none` leaves the mesh where it stands. Units are those of the scan.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.geometry.align import Alignment, align_rigid, align_similarity
from facerecon_torch.geometry.mesh_queries import MeshBackend, get_backend
from facerecon_torch.metrics.surface_fit import SCAN_ALIGNMENTS, SurfaceFit, identity_alignment, refined
from facerecon_torch.runtime.precision import in_own_precision

__all__ = [
    "SCAN_ALIGNMENTS",
    "SEVEN_POINTS",
    "ScanErrors",
    "ScanSetErrors",
    "face_mask",
    "measured_again",
    "scan_to_mesh",
    "scans_to_meshes",
]

SEVEN_POINTS = (36, 39, 42, 45, 33, 48, 54)
"""iBUG numbers: outer, inner, inner, outer eye corner, bottom of the nose, mouth corners."""
_SOLVERS = {"rigid": align_rigid, "similarity": align_similarity}


@dataclass(frozen=True)
class ScanErrors:
    """Distances of the scan points inside the mask, the placement of the mesh, and the mask itself."""

    distances: Float[Tensor, "masked"]
    alignment: Alignment
    mask: Bool[Tensor, "n"]

    @property
    def median(self) -> float:
        return float(self.distances.median())

    @property
    def mean(self) -> float:
        return float(self.distances.mean())

    @property
    def deviation(self) -> float:
        return float(self.distances.std(correction=0))


@dataclass(frozen=True)
class ScanSetErrors:
    """Distances of a batch of scans, NaN at points outside their masks, and the placement of every mesh.

    `triangle` is the mesh triangle nearest to each point.
    """

    distances: Float[Tensor, "b n"]
    alignment: Alignment
    triangle: Int[Tensor, "b n"]

    @property
    def median(self) -> Float[Tensor, "b"]:
        return self.distances.nanmedian(-1).values

    @property
    def mean(self) -> Float[Tensor, "b"]:
        return self.distances.nanmean(-1)

    @property
    def deviation(self) -> Float[Tensor, "b"]:
        return (self.distances - self.mean[:, None]).square().nanmean(-1).sqrt()


def face_mask(scan: Float[Tensor, "*b n 3"], landmarks: Float[Tensor, "*b 7 3"]) -> Bool[Tensor, "*b n"]:
    """Whether each scan point lies in the sphere about the lower nose, sized by the outer eye corners and the length of
    the nose."""
    outer_left, inner_left, inner_right, outer_right, bottom = landmarks[..., :5, :].unbind(-2)
    bridge = (inner_left + inner_right) / 2
    centre = bottom + 0.3 * (bridge - bottom)
    spans = torch.stack([outer_right - outer_left, bridge - bottom], -2)
    radius = 1.4 * torch.linalg.vector_norm(spans, dim=-1).mean(-1)
    inside: Tensor = torch.linalg.vector_norm(scan - centre[..., None, :], dim=-1) <= radius[..., None]
    return inside


def scan_to_mesh(
    scan: Float[Tensor, "n 3"],
    scan_landmarks: Float[Tensor, "7 3"],
    vertices: Float[Tensor, "V 3"],
    triangles: Int[Tensor, "T 3"],
    landmarks: Float[Tensor, "7 3"],
    *,
    scale: bool = True,
    backend: MeshBackend | None = None,
) -> ScanErrors:
    """Distances from the scan's face to the mesh after the best alignment.

    Args:
        scan: points of the raw scan.
        scan_landmarks: its landmarks in the order of `SEVEN_POINTS`.
        vertices: vertices of the mesh, in its own frame and unit.
        triangles: its triangles.
        landmarks: its landmarks, in the same order.
        scale: whether the alignment may change the size of the mesh.
        backend: mesh backend; the current one by default.

    Raises:
        ValueError: no scan point inside the mask; scan and landmarks are not in one frame.

    Example:
        >>> scan_to_mesh(points, points_of_scan, vertices, triangles, vertices[rows]).median
    """
    all_points = torch.ones(1, len(scan), dtype=torch.bool, device=scan.device)
    align = "similarity" if scale else "rigid"
    errors = scans_to_meshes(
        scan[None], scan_landmarks[None], vertices[None], triangles, landmarks[None],
        counted=all_points, align=align, backend=backend,
    )  # fmt: skip
    mask = ~errors.distances[0].isnan()
    return ScanErrors(errors.distances[0][mask], errors.alignment[0], mask)


@in_own_precision
def scans_to_meshes(
    scans: Float[Tensor, "b n 3"],
    scan_landmarks: Float[Tensor, "b 7 3"],
    vertices: Float[Tensor, "b V 3"],
    triangles: Int[Tensor, "T 3"],
    landmarks: Float[Tensor, "b 7 3"],
    *,
    counted: Bool[Tensor, "b n"],
    align: str = "similarity",
    masked: bool = True,
    backend: MeshBackend | None = None,
) -> ScanSetErrors:
    """Distances from a batch of scans to meshes of one topology, each after its own best alignment.

    Args:
        scans: points of the scans, padded to one number.
        scan_landmarks: their landmarks in the order of `SEVEN_POINTS`.
        vertices: vertices of the meshes, in their own frame and unit.
        triangles: of all meshes.
        landmarks: of the meshes, in the same order.
        counted: the points that are measured; False for padding.
        align: one of `SCAN_ALIGNMENTS`.
        masked: whether points outside of `face_mask` are left out.
        backend: mesh backend; the current one by default.

    Raises:
        ValueError: another `align`; a scan without a point inside the mask.

    Example:
        >>> scans_to_meshes(scans, marks, meshes, triangles, meshes[:, rows], counted=valid, align="rigid").median
    """
    if align not in SCAN_ALIGNMENTS:
        raise ValueError(f"align must be one of {SCAN_ALIGNMENTS}; got {align!r}")
    if masked:
        counted = counted & face_mask(scans, scan_landmarks)
    empty = torch.nonzero(~counted.any(-1)).flatten().tolist()
    if empty:
        raise ValueError(
            f"no point of the scan ({scans.shape[1]}) lies within the face's sphere around its landmarks; "
            f"scans {empty[:8]} of the batch"
        )
    if align == "none":
        start = identity_alignment(len(scans), scans.device)
    else:
        start = _SOLVERS[align](landmarks.double(), scan_landmarks.double())
    fit = SurfaceFit(scans.double(), counted, vertices.double(), triangles, align, backend or get_backend())
    placed, closest = refined(fit, start)
    distances = closest.distance.masked_fill(~counted, torch.nan).to(scans.dtype)
    return ScanSetErrors(distances, placed.to(scans.dtype), closest.triangle)


@in_own_precision
def measured_again(
    errors: ScanSetErrors,
    scans: Float[Tensor, "b n 3"],
    vertices: Float[Tensor, "b V 3"],
    triangles: Int[Tensor, "T 3"],
    counted: Bool[Tensor, "b n"],
) -> ScanSetErrors:
    """Distances of other points of the scans under the placements of `errors`; nothing is aligned again."""
    placed = errors.alignment.to(torch.float64).apply(vertices.double())
    closest = get_backend().closest_point(scans.double(), placed, triangles)
    distances = closest.distance.masked_fill(~counted, torch.nan).to(scans.dtype)
    return ScanSetErrors(distances, errors.alignment, closest.triangle)
