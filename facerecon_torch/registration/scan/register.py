"""Registration of scans: the fitted model S*, the mesh M bent onto the scan, and how well both met it."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.landmarks.scheme import N_INNER
from facerecon_torch.model.base import FaceModel
from facerecon_torch.registration.scan.icp import ScanFit, fit_scans
from facerecon_torch.registration.scan.icp_spec import IcpSpec
from facerecon_torch.registration.scan.measures import eyelid_residual, landmark_residual, sample_face, scan_distance
from facerecon_torch.registration.scan.nonrigid import Deformed, DeformSpec, deform
from facerecon_torch.registration.scan.surface import ScanBatch
from facerecon_torch.structures import FaceParameters

__all__ = ["FLAGS", "IDENTITY_MODES", "Registered", "RegistrationSpec", "register"]

IDENTITY_MODES = ("per_scan", "per_subject")
FLAGS: dict[str, str] = {
    "failed": "too few landmarks or inliers to fit: the numbers mean nothing",
    "few_landmarks": "fewer labelled and lifted inner landmarks than fewest_landmarks",
    "no_lifted": "no inner landmark of the image could be lifted onto the scan: eyelids follow the surface alone",
    "low_inliers": "inlier_share below lowest_inliers",
    "far_from_scan": "scan_to_fit above farthest_fit or scan_to_mesh above farthest_mesh, or no scan point on the face",
    "folded": "triangles of the mesh are turned over against the fitted mesh",
}
"""What `Registered.flags` may hold, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationSpec:
    """How scans are registered, and from where on a result is flagged."""

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

    def __post_init__(self) -> None:
        if self.identity not in IDENTITY_MODES:
            raise ValueError(f"identity must be one of {IDENTITY_MODES}; got {self.identity!r}")
        if min(self.chunk, self.measured_points) < 1:
            raise ValueError(
                f"chunk and measured_points must be at least 1; got {self.chunk} and {self.measured_points}"
            )
        for name in ("reach", "farthest_fit", "farthest_mesh"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be positive and finite; got {getattr(self, name)}")


_DEFAULT = RegistrationSpec()


@dataclass(frozen=True)
class Registered:
    """scan = rotation v + translation. `parameters` are S*, `mesh` is M, both in the model frame (mm); `covered`: the
    vertices of M that lie on the scan.

    `measures`, one number per scan: `scan_to_fit` and `scan_to_mesh`, medians of the true distances in mm from scan
    points on the face to S* and to M (both at the same points); `inlier_share`; `landmark_residual` and
    `eyelid_residual` of M (mm; the latter across the sensor's axis); `folded`, a count of triangles; `covered_share` of
    the face's vertices. NaN: not known. `flags` names what is wrong with each scan (`FLAGS`).
    """

    parameters: FaceParameters
    rotation: Float[Tensor, "b 3 3"]
    translation: Float[Tensor, "b 3"]
    mesh: Float[Tensor, "b V 3"]
    covered: Bool[Tensor, "b V"]
    measures: dict[str, Tensor]
    flags: tuple[tuple[str, ...], ...]


@torch.no_grad()
def register(
    model: FaceModel,
    scans: ScanBatch,
    labelled: Float[Tensor, "b 66 3"],
    lifted: Float[Tensor, "b 66 3"],
    spec: RegistrationSpec = _DEFAULT,
    groups: Int[Tensor, "b"] | None = None,
) -> Registered:
    """S* and M of every scan. `labelled` are the data set's own points, `lifted` detected ones on the scan, both in mm
    in the sensor's frame and NaN where not known; `groups` numbers the subjects, for identity="per_subject" only.

    A scan that can't be registered is flagged and the others go on. Raises ValueError for shapes or devices that do not
    fit, a model without topology, or per_subject without groups.
    """
    if spec.identity == "per_subject" and groups is None:
        raise ValueError('groups must number the subjects for identity="per_subject"; got None')
    shared = groups if spec.identity == "per_subject" else None
    fit = fit_scans(model, scans, labelled, lifted, spec.icp, shared)
    parts = []
    for start in range(0, len(scans), spec.chunk):
        rows = slice(start, start + spec.chunk)
        parts.append(_bend(model, _rows(fit, rows), scans.rows(rows), labelled[rows], lifted[rows], spec))
    measures = {name: torch.cat([part[1][name] for part in parts]) for name in parts[0][1]}
    known = _known(labelled) + _known(lifted)
    flags = _flags(fit, measures, known, _known(lifted), spec)
    mesh, covered = (torch.cat([getattr(part[0], name) for part in parts]) for name in ("mesh", "covered"))
    return Registered(fit.parameters, fit.rotation, fit.translation, mesh, covered, measures, flags)


def _rows(fit: ScanFit, rows: slice) -> ScanFit:
    return ScanFit(
        fit.parameters[rows],
        fit.rotation[rows],
        fit.translation[rows],
        fit.inlier_share[rows],
        fit.residual[rows],
        fit.failed[rows],
    )


def _bend(
    model: FaceModel, fit: ScanFit, scans: ScanBatch, labelled: Tensor, lifted: Tensor, spec: RegistrationSpec
) -> tuple[Deformed, dict[str, Tensor]]:
    topology = model.topology
    if topology is None:
        raise ValueError("model must have a topology (a restricted model has none)")
    like = scans.points
    bent = deform(model, fit, scans, lifted, spec.deform)
    parameters = fit.parameters.to(model.dtype)
    fitted = model.vertices(parameters.identity, parameters.expression).to(like)
    posed, moved = (mesh @ fit.rotation.mT + fit.translation[:, None] for mesh in (fitted, bent.mesh))
    sample = sample_face(scans, posed, topology, points=spec.measured_points, reach=float(spec.reach))
    marks = topology.landmark_vertices
    face = topology.whole_vertices
    return bent, {
        "scan_to_fit": scan_distance(sample, posed, topology.triangles),
        "scan_to_mesh": scan_distance(sample, moved, topology.triangles),
        "inlier_share": fit.inlier_share,
        "landmark_residual": landmark_residual(moved, marks, labelled.to(like), lifted.to(like)),
        "eyelid_residual": eyelid_residual(moved, marks, lifted.to(like)),
        "covered_share": bent.covered[:, face].to(like.dtype).mean(1),
        "folded": bent.folded.to(like.dtype),
    }


def _known(points: Float[Tensor, "b 66 3"]) -> Int[Tensor, "b"]:
    return torch.isfinite(points[:, :N_INNER]).all(-1).sum(1)


def _flags(
    fit: ScanFit, measures: dict[str, Tensor], known: Tensor, lifted: Tensor, spec: RegistrationSpec
) -> tuple[tuple[str, ...], ...]:
    near = (measures["scan_to_fit"] <= spec.farthest_fit) & (measures["scan_to_mesh"] <= spec.farthest_mesh)
    raised = {
        "failed": fit.failed,
        "few_landmarks": known < spec.fewest_landmarks,
        "no_lifted": lifted == 0,
        "low_inliers": measures["inlier_share"] < spec.lowest_inliers,
        "far_from_scan": ~near,  # also where the distance is NaN
        "folded": measures["folded"] > 0,
    }
    table = torch.stack([raised[name] for name in FLAGS], 1).tolist()
    return tuple(tuple(name for name, on in zip(FLAGS, row) if on) for row in table)
