"""Distance from a raw scan to a reconstructed mesh without correspondence, as in the NoW benchmark.

The mesh is aligned by a similarity on 7 points, then moved to the least sum of squared scan-to-mesh distances. The
remaining distances are measured inside a sphere around the face. With `scale=False` both steps keep the size of the
mesh, which is the metrical variant. Units are those of the scan.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.geometry.align import Alignment, align_rigid, align_similarity
from facerecon_torch.geometry.mesh_queries import ClosestPoint, MeshBackend, get_backend
from facerecon_torch.geometry.normals import triangle_normals
from facerecon_torch.geometry.rotation import axis_angle_to_matrix
from facerecon_torch.runtime.precision import in_own_precision

__all__ = ["SEVEN_POINTS", "ScanErrors", "face_mask", "scan_to_mesh"]

SEVEN_POINTS = (36, 39, 42, 45, 33, 48, 54)
"""iBUG numbers: outer, inner, inner, outer eye corner, bottom of the nose, mouth corners."""
_ROUNDS = 60
_ENOUGH = 1e-9  # relative fall of the mean squared distance below which the iteration ends


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


def face_mask(scan: Float[Tensor, "n 3"], landmarks: Float[Tensor, "7 3"]) -> Bool[Tensor, "n"]:
    """Whether each scan point lies in the sphere about the lower nose, sized by the outer eye corners and the length of
    the nose."""
    outer_left, inner_left, inner_right, outer_right, bottom = landmarks[:5]
    bridge = (inner_left + inner_right) / 2
    centre = bottom + 0.3 * (bridge - bottom)
    spans = torch.stack([outer_right - outer_left, bridge - bottom])
    radius = 1.4 * torch.linalg.vector_norm(spans, dim=-1).mean()
    inside: Tensor = torch.linalg.vector_norm(scan - centre, dim=-1) <= radius
    return inside


@in_own_precision
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
    mask = face_mask(scan, scan_landmarks)
    if not bool(mask.any()):
        raise ValueError(f"no point of the scan ({len(scan)}) lies within the face's sphere around its landmarks")
    solve = align_similarity if scale else align_rigid
    start = solve(landmarks.double(), scan_landmarks.double())
    fit = _Refinement(scan[mask].double(), vertices.double(), triangles, scale, backend or get_backend())
    placed, closest = fit.run(start)
    return ScanErrors(closest.distance.to(scan.dtype), placed.to(scan.dtype), mask)


@dataclass(frozen=True)
class _Refinement:
    """Gauss-Newton on the distances. A step that does not lower them is replaced by the closed-form step, which never
    raises them."""

    points: Tensor
    vertices: Tensor
    triangles: Tensor
    scale: bool
    backend: MeshBackend

    def run(self, placed: Alignment) -> tuple[Alignment, ClosestPoint]:
        closest = self._closest(placed)
        for _ in range(_ROUNDS):
            before = closest.distance.square().mean()
            trial = self._newton_step(placed, closest)
            closest_to_trial = self._closest(trial)
            if not bool(closest_to_trial.distance.square().mean() < before):
                trial = self._closed_form_step(placed, closest)
                closest_to_trial = self._closest(trial)
            after = closest_to_trial.distance.square().mean()
            if not bool(after < before):
                break
            placed, closest = trial, closest_to_trial
            if bool(after > before * (1 - _ENOUGH)):
                break
        return placed, closest

    def _closest(self, placed: Alignment) -> ClosestPoint:
        return self.backend.closest_point(self.points, placed.apply(self.vertices), self.triangles)

    def _closed_form_step(self, placed: Alignment, closest: ClosestPoint) -> Alignment:
        """The alignment after the best motion for the current pairs of points."""
        own = placed.inverse().apply(closest.point)
        return (align_similarity if self.scale else align_rigid)(own, self.points)

    def _newton_step(self, placed: Alignment, closest: ClosestPoint) -> Alignment:
        """The alignment after a Gauss-Newton step; a motion changes a distance by its component along that line."""
        gap = self.points - closest.point
        normals = triangle_normals(placed.apply(self.vertices), self.triangles)[closest.triangle]
        near = closest.distance[:, None] < 1e-6
        along = torch.where(near, normals, gap / torch.where(near, 1.0, closest.distance[:, None]))
        centre = closest.point.mean(0)
        arm = closest.point - centre
        columns = [torch.linalg.cross(arm, along), along]
        if self.scale:
            columns.append((arm * along).sum(-1, keepdim=True))
        design = torch.cat(columns, -1)
        normal = design.mT @ design
        damping = 1e-9 * normal.diagonal().mean() * torch.eye(len(normal), dtype=normal.dtype, device=normal.device)
        step = torch.linalg.solve(normal + damping, design.mT @ (gap * along).sum(-1))
        turn = axis_angle_to_matrix(step[:3])
        grow = 1 + step[6] if self.scale else torch.ones_like(placed.scale)
        shift = grow * (turn @ (placed.translation - centre)) + centre + step[3:6]
        return Alignment(grow * placed.scale, turn @ placed.rotation, shift)
