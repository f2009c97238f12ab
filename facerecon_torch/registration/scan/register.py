"""Registration of scans: the fitted model S*, the mesh M bent onto the scan, and how well both meet the scan."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.checks import require_positive
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.landmarks.scheme import GROUPS_66, N_INNER
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.topology import FaceTopology
from facerecon_torch.registration.scan.eyes import lid_opening
from facerecon_torch.registration.scan.icp import ScanFit, fit_scans
from facerecon_torch.registration.scan.initialise import IcpSpec
from facerecon_torch.registration.scan.nonrigid import DeformSpec, deform
from facerecon_torch.registration.scan.surface import ScanBatch
from facerecon_torch.structures import FaceParameters, TensorRecord

__all__ = [
    "FLAGS",
    "IDENTITY_MODES",
    "MEASURES",
    "Registered",
    "RegistrationSpec",
    "eyelid_residual",
    "landmark_residual",
    "lids_off",
    "register",
    "sample_face",
    "scan_distance",
]

IDENTITY_MODES = ("per_scan", "per_subject")
MEASURES = (
    "scan_to_fit",
    "scan_to_mesh",
    "inlier_share",
    "landmark_residual",
    "eyelid_residual",
    "covered_share",
    "folded",
)
FLAGS: dict[str, str] = {
    "failed": "too few landmarks or inliers to fit: the numbers mean nothing",
    "few_landmarks": "fewer labelled and lifted inner landmarks than fewest_landmarks",
    "no_lifted": "no inner landmark of the image could be lifted onto the scan: eyelids follow the surface alone",
    "low_inliers": "inlier_share below lowest_inliers",
    "far_from_scan": "scan_to_fit above farthest_fit or scan_to_mesh above farthest_mesh, or no scan point on the face",
    "eyelids": "an eye of the mesh is opened by farthest_lids more or less than the labelled lids say",
    "folded": "triangles of the mesh are flipped against the fitted mesh",
}
"""The names in `Registered.flags`, with their meaning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationSpec:
    """Settings of the registration of scans, and the limits beyond which a result is flagged.

    Raises:
        ValueError: unknown identity mode, or a number outside its range.
    """

    icp: IcpSpec = field(default_factory=IcpSpec)
    deform: DeformSpec = field(default_factory=DeformSpec)
    identity: str = "per_scan"  # or per_subject: one alpha for all scans of a group
    chunk: int = 32  # scans deformed together: bounds memory, changes no result
    measured_points: int = 4000  # scan points per scan whose distance is measured
    reach: float | int = 10.0  # mm: scan points further from the fitted mesh are not of the face
    fewest_landmarks: int = 8
    lowest_inliers: float = 0.35
    farthest_fit: float | int = 2.5  # mm, median
    farthest_mesh: float | int = 0.6  # mm, median
    farthest_lids: float | int = 3.0  # mm: opening of either eye of M against that of labelled lids

    def __post_init__(self) -> None:
        if self.identity not in IDENTITY_MODES:
            raise ValueError(f"identity must be one of {IDENTITY_MODES}; got {self.identity!r}")
        if min(self.chunk, self.measured_points) < 1:
            raise ValueError(
                f"chunk and measured_points must be at least 1; got {self.chunk} and {self.measured_points}"
            )
        require_positive(self, "reach", "farthest_fit", "farthest_mesh", "farthest_lids")


_DEFAULT = RegistrationSpec()


@dataclass(frozen=True, kw_only=True)
class Registered(TensorRecord):
    """Registered scans: scan = rotation v + translation (mm).

    `parameters` describe S*; `mesh` is M in the model frame (mm); `covered` marks the vertices of M that lie on the
    scan. `measured` and `raised` are the tables behind `measures` and `flags`.
    """

    parameters: FaceParameters
    rotation: Float[Tensor, "b 3 3"]
    translation: Float[Tensor, "b 3"]
    mesh: Float[Tensor, "b V 3"]
    covered: Bool[Tensor, "b V"]
    measured: Float[Tensor, "b measures"]
    raised: Bool[Tensor, "b flags"]

    @property
    def measures(self) -> dict[str, Float[Tensor, "b"]]:
        """One number per scan for each name in MEASURES; NaN where it is not known.

        `scan_to_fit`, `scan_to_mesh`: median distance in mm from the same scan points on the face to S* and to M.
        `landmark_residual`, `eyelid_residual`: of M, in mm, the latter across the sensor's axis. `covered_share`: of
        the vertices of the face. `folded`: number of flipped triangles.
        """
        return dict(zip(MEASURES, self.measured.unbind(1)))

    @property
    def flags(self) -> tuple[tuple[str, ...], ...]:
        """The names in FLAGS that apply to each scan."""
        return tuple(tuple(name for name, on in zip(FLAGS, row) if on) for row in self.raised.tolist())


@torch.no_grad()
def register(
    model: FaceModel,
    scans: ScanBatch,
    labelled: Float[Tensor, "b 66 3"],
    lifted: Float[Tensor, "b 66 3"],
    spec: RegistrationSpec = _DEFAULT,
    groups: Int[Tensor, "b"] | None = None,
) -> Registered:
    """S* and M of every scan, in the dtype and on the device of the scans. Not differentiable.

    A scan that cannot be registered is flagged and changes no other scan.

    Args:
        model: a model with topology.
        scans: from `resample_grid` or `resample_mesh`, joined by `stack_scans`.
        labelled: the data set's own landmarks, mm in the sensor's frame, NaN where not known.
        lifted: detected landmarks on the scan, likewise (`lift_landmarks`).
        spec: weights, penalties and limits.
        groups: number of each scan's subject; used with identity="per_subject" only.

    Raises:
        ValueError: shapes or devices that do not fit, a model without topology, or per_subject without groups.

    Example:
        >>> scan = resample_mesh(vertices, triangles)
        >>> registered = register(load_default_face(), scan, labelled[None], lifted[None])
        >>> registered.mesh, registered.measures["scan_to_mesh"], registered.flags
    """
    if spec.identity == "per_subject" and groups is None:
        raise ValueError('groups must number the subjects for identity="per_subject"; got None')
    shared = groups if spec.identity == "per_subject" else None
    fit = fit_scans(model, scans, labelled, lifted, spec.icp, shared)
    chunks = (slice(start, start + spec.chunk) for start in range(0, len(scans), spec.chunk))
    return Registered.cat([_bent(model, fit[c], scans[c], labelled[c], lifted[c], spec) for c in chunks])


def _bent(
    model: FaceModel, fit: ScanFit, scans: ScanBatch, labelled: Tensor, lifted: Tensor, spec: RegistrationSpec
) -> Registered:
    """Fitted scans with their meshes, measures and flags."""
    topology = model.topology
    if topology is None:
        raise ValueError("model must have a topology (a restricted model has none)")
    like = scans.points
    bent = deform(model, fit, scans, labelled, lifted, spec.deform)
    parameters = fit.parameters.to(model.dtype)
    fitted = model.vertices(parameters.identity, parameters.expression).to(like)
    posed, moved = (mesh @ fit.rotation.mT + fit.translation[:, None] for mesh in (fitted, bent.mesh))
    points, on_face = sample_face(scans, posed, topology, points=spec.measured_points, reach=float(spec.reach))
    marks = topology.landmark_vertices
    measures = {
        "scan_to_fit": scan_distance(points, on_face, posed, topology.triangles),
        "scan_to_mesh": scan_distance(points, on_face, moved, topology.triangles),
        "inlier_share": fit.inlier_share,
        "landmark_residual": landmark_residual(moved, marks, labelled.to(like), lifted.to(like)),
        "eyelid_residual": eyelid_residual(moved, marks, lifted.to(like)),
        "covered_share": bent.covered[:, topology.whole_vertices].to(like.dtype).mean(1),
        "folded": bent.flipped.to(like.dtype),
    }
    return Registered(
        parameters=fit.parameters,
        rotation=fit.rotation,
        translation=fit.translation,
        mesh=bent.mesh,
        covered=bent.covered,
        measured=torch.stack([measures[name].to(like.dtype) for name in MEASURES], 1),
        raised=_raised(
            fit.failed,
            measures,
            _count_inner(labelled),
            _count_inner(lifted),
            lids_off(moved[:, marks], labelled.to(like)) > spec.farthest_lids,
            spec,
        ),
    )


def _count_inner(points: Float[Tensor, "b 66 3"]) -> Int[Tensor, "b"]:
    """Number of inner landmarks that are known."""
    return torch.isfinite(points[:, :N_INNER]).all(-1).sum(1)


def _raised(
    failed: Bool[Tensor, "b"],
    measures: Mapping[str, Tensor],
    n_labelled: Int[Tensor, "b"],
    n_lifted: Int[Tensor, "b"],
    eyelids: Bool[Tensor, "b"],
    spec: RegistrationSpec,
) -> Bool[Tensor, "b flags"]:
    near = (measures["scan_to_fit"] <= spec.farthest_fit) & (measures["scan_to_mesh"] <= spec.farthest_mesh)
    raised = {
        "failed": failed,
        "few_landmarks": n_labelled + n_lifted < spec.fewest_landmarks,
        "no_lifted": n_lifted == 0,
        "low_inliers": measures["inlier_share"] < spec.lowest_inliers,
        "far_from_scan": ~near,  # also where the distance is NaN
        "eyelids": eyelids,
        "folded": measures["folded"] > 0,
    }
    return torch.stack([raised[name] for name in FLAGS], 1)


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


def lids_off(points: Float[Tensor, "b 66 3"], labelled: Float[Tensor, "b 66 3"]) -> Float[Tensor, "b"]:
    """The larger of both eyes' differences in opening, mm, from the labelled lids; 0 for eyes without labelled lids."""
    return (lid_opening(points) - lid_opening(labelled)).abs().nan_to_num(0.0).amax(1)


def eyelid_residual(
    vertices: Float[Tensor, "b V 3"], landmark_vertices: Int[Tensor, "66"], lifted: Float[Tensor, "b 66 3"]
) -> Float[Tensor, "b"]:
    """Median distance in mm, across the sensor's axis, of the 12 eyelid vertices from the lifted points; NaN without
    any."""
    rows = list(GROUPS_66["eyes"])
    offset = vertices[:, landmark_vertices[rows], :2] - lifted[:, rows, :2]
    median: Tensor = torch.linalg.vector_norm(offset, dim=-1).nanmedian(1).values
    return median
