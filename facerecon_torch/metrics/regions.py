"""Errors by region of the face (REALY-style), and of surface, normals and completeness (FaceScape-style), in batches.

Regions are defined on the scan by its seven landmarks, so that any scan has them. With u the distance of the outer eye
corners, and x (to the image right), y (from the mouth to the eyes) measured from the point between the inner eye
corners in units of u:

    forehead  y > 0.22
    nose      |x| < 0.2, and y from 0.08 to 0.06 below the nose's bottom
    mouth     |x| < 0.36, and y from 0.06 to 0.5 below the nose's bottom
    cheeks    0.22 < |x|, and y from -0.15 to the mouth corners, where it is not mouth

Points outside of `scan.face_mask` belong to no region; the eyes belong to none, as in REALY.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.normals import triangle_normals, vertex_normals
from facerecon_torch.metrics.scan import ScanSetErrors, face_mask
from facerecon_torch.metrics.surface_fit import SurfaceFit, identity_alignment, refined
from facerecon_torch.registration.surface_parts import make_surface
from facerecon_torch.runtime.precision import in_own_precision

__all__ = [
    "COMPLETE_MM",
    "FACE_REGIONS",
    "SurfaceQuality",
    "face_regions",
    "mesh_to_scan",
    "region_errors",
    "surface_quality",
]

FACE_REGIONS = ("nose", "mouth", "forehead", "cheeks")
COMPLETE_MM = 10.0
"""A scan point farther than this from the mesh counts as not reconstructed."""
_SAME_SIDE = 0.5  # least cosine between the normals of two surfaces that face one way
_FEWEST = 12  # points of a region below which it has no error
_ENOUGH = 1e-3  # fall of a region's mean squared distance below which its alignment ends


def face_regions(scans: Float[Tensor, "b n 3"], landmarks: Float[Tensor, "b 7 3"]) -> dict[str, Bool[Tensor, "b n"]]:
    """The mask of every region of `FACE_REGIONS`; no point is in two.

    Args:
        scans: points of the scans.
        landmarks: theirs, in the order of `scan.SEVEN_POINTS`.
    """
    outer_left, inner_left, inner_right, outer_right, bottom, mouth_left, mouth_right = landmarks.unbind(-2)
    origin, mouth = (inner_left + inner_right) / 2, (mouth_left + mouth_right) / 2
    across = outer_right - outer_left
    unit = torch.linalg.vector_norm(across, dim=-1)[:, None]
    right = normalize(across, dim=-1)
    up = origin - mouth
    up = normalize(up - (up * right).sum(-1, keepdim=True) * right, dim=-1)

    def along(points: Tensor, axis: Tensor) -> Tensor:
        offset: Tensor = ((points - origin[:, None]) * axis[:, None]).sum(-1) / unit
        return offset

    x, y = along(scans, right).abs(), along(scans, up)
    nose_end, mouth_y = along(bottom[:, None], up), along(mouth[:, None], up)
    inside = face_mask(scans, landmarks)
    in_mouth = (x < 0.36) & (y < nose_end - 0.06) & (y > nose_end - 0.5)
    return {
        "nose": inside & (x < 0.2) & (y < 0.08) & (y >= nose_end - 0.06),
        "mouth": inside & in_mouth,
        "forehead": inside & (y > 0.22),
        "cheeks": inside & (x > 0.22) & (y < -0.15) & (y > mouth_y) & ~in_mouth,
    }


@in_own_precision
def region_errors(
    scans: Float[Tensor, "b n 3"],
    scan_landmarks: Float[Tensor, "b 7 3"],
    vertices: Float[Tensor, "b V 3"],
    triangles: Int[Tensor, "T 3"],
    errors: ScanSetErrors,
) -> dict[str, Float[Tensor, "b"]]:
    """Mean distance from each region of the scans to meshes that are moved rigidly onto that region alone.

    As in REALY, an error in one region does not move the others. The meshes keep the size of the whole face's
    alignment; REALY's non-rigid registration is left out.

    Args:
        scans: points of the scans.
        scan_landmarks: theirs.
        vertices: of the meshes, in their own frame.
        triangles: of all meshes.
        errors: of the whole face, whose placement the motions start from and whose points are used.

    Returns:
        By region; NaN for a scan with fewer than 12 points there.

    Example:
        >>> region_errors(scans, marks, meshes, triangles, scans_to_meshes(...))["nose"].nanmean()
    """
    known = ~errors.distances.isnan()
    placed = errors.alignment.to(torch.float64).apply(vertices.double())
    result: dict[str, Tensor] = {}
    for name, mask in face_regions(scans, scan_landmarks).items():
        counted = mask & known
        rows = torch.nonzero(counted.sum(-1) >= _FEWEST).flatten()
        result[name] = torch.full_like(scans[:, 0, 0], torch.nan)
        if len(rows):
            points, there = _packed(scans[rows].double(), counted[rows])
            fit = SurfaceFit(points, there, placed[rows], triangles, "rigid", get_backend(), enough=_ENOUGH)
            _, closest = refined(fit, identity_alignment(len(rows), scans.device))
            result[name][rows] = closest.distance.masked_fill(~there, torch.nan).nanmean(-1).to(scans.dtype)
    return result


def _packed(
    points: Float[Tensor, "b n 3"], counted: Bool[Tensor, "b n"]
) -> tuple[Float[Tensor, "b m 3"], Bool[Tensor, "b m"]]:
    """The points that count, in front, as many as the largest scan has; and which these are."""
    order = counted.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)[:, : int(counted.sum(-1).max())]
    return points.gather(1, order[..., None].expand(-1, -1, 3)), counted.gather(1, order)


@dataclass(frozen=True)
class SurfaceQuality:
    """Per scan, inside the face mask: `chamfer`, the mean of both directions' mean distances, NaN where the scan has no
    triangles; `normal_degrees`, the mean angle between the normals; `complete_percent`, the share of scan points that
    lie within `COMPLETE_MM` of the mesh."""

    chamfer: Float[Tensor, "b"]
    normal_degrees: Float[Tensor, "b"]
    complete_percent: Float[Tensor, "b"]


@in_own_precision
def surface_quality(
    errors: ScanSetErrors,
    scan_normals: Float[Tensor, "b n 3"],
    vertices: Float[Tensor, "b V 3"],
    triangles: Int[Tensor, "T 3"],
    backward: Float[Tensor, "b"],
) -> SurfaceQuality:
    """FaceScape-style measures from distances that are known.

    Args:
        errors: scan-to-mesh distances with their nearest triangles.
        scan_normals: unit normals of the scan points; zero where unknown.
        vertices: of the meshes, in their own frame.
        triangles: of all meshes.
        backward: mean distance from the meshes to the scans (`mesh_to_scan`).

    Example:
        >>> surface_quality(errors, normals, meshes, triangles, backward).normal_degrees
    """
    counted = ~errors.distances.isnan()
    faces = triangle_normals(errors.alignment.apply(vertices), triangles)
    faces = faces.gather(1, errors.triangle[..., None].expand(-1, -1, 3))
    cosine = (faces * scan_normals).sum(-1).abs().clamp(max=1)  # winding differs between systems
    angle = torch.rad2deg(torch.arccos(cosine))
    has_normal = counted & (scan_normals.square().sum(-1) > 0.5)
    near = (errors.distances <= COMPLETE_MM) & counted
    return SurfaceQuality(
        (errors.mean + backward) / 2,
        angle.masked_fill(~has_normal, torch.nan).nanmean(-1),
        100 * near.sum(-1) / counted.sum(-1),
    )


@in_own_precision
def mesh_to_scan(
    placed: Float[Tensor, "V 3"],
    triangles: Int[Tensor, "F 3"],
    scan_vertices: Float[Tensor, "S 3"],
    scan_triangles: Int[Tensor, "T 3"],
    scan_landmarks: Float[Tensor, "7 3"],
) -> Float[Tensor, ""]:
    """The mean distance from the vertices of a placed mesh inside the face mask to the scan's surface.

    Left out are vertices where the scan has no such surface: farther than `COMPLETE_MM`, nearest to its rim, or turned
    away by more than 60 degrees, as the inside of the mouth is. NaN where none is left.
    """
    inside = face_mask(placed, scan_landmarks)
    if not bool(inside.any()):
        return placed.new_tensor(torch.nan)
    points, normals = placed[inside], vertex_normals(placed, triangles)[inside]
    surface = make_surface(scan_vertices.to(placed), scan_triangles)
    nearest = surface.nearest(points, normals, gate=COMPLETE_MM, cosine=-1.0)
    cosine = (nearest.normals * normals).sum(-1)
    winding = torch.sign(cosine.sum())  # of the mesh against the scan's
    mean: Tensor = nearest.distances[(nearest.weights > 0) & (cosine * winding > _SAME_SIDE)].mean()
    return mean
