"""M: the fitted mesh bent onto the scan, smoothly, where the scan has something to say.

The displacement d of the fitted mesh S* minimises  integral l^4 |Laplace d|^2 + integral w |d - g|^2,  where g leads
from a vertex straight along the scan's normal to the scan and w is the trust in that pair, plus a weak w towards d = 0
everywhere. l is a length: what is narrower than it is smoothed away. Pairs and field are found in turn, with l and the
gates falling. Rims and holes give no pull: what lies over them follows its surroundings.
"""

import math
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.checks import require_shape
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.geometry.smooth_field import SmoothSolver
from facerecon_torch.geometry.visibility import visible_vertices
from facerecon_torch.model.base import FaceModel
from facerecon_torch.registration.scan.association import Association, AssociationSpec, associate
from facerecon_torch.registration.scan.eyelids import Eyelids, EyelidSpec
from facerecon_torch.registration.scan.flipped_triangles import flipped_triangles, moved_as_one, vertices_of
from facerecon_torch.registration.scan.icp import ScanFit
from facerecon_torch.registration.scan.rigid_parts import Passengers
from facerecon_torch.registration.scan.surface import ScanBatch
from facerecon_torch.registration.surface_parts import outer_skin

__all__ = ["DeformSpec", "Deformed", "deform"]

_PIECE_ROUNDS, _PIECE_STEPS = 8, 8
_PRECISION = torch.float32  # of the smooth fields: displacements of millimetres, good to micrometres


@dataclass(frozen=True, slots=True, kw_only=True)
class DeformSpec:
    """One round per entry of `lengths` and `distances`."""

    lengths: tuple[float, ...] = (8.0, 5.0, 3.5, 2.5)  # mm: l
    distances: tuple[float, ...] = (6.0, 5.0, 4.0, 3.0)  # mm: gates of the pairs
    normal_degrees: float | int = 60.0  # gate on the angle between the normals of a pair
    anchor: float = 0.003  # weight towards the fitted mesh; a full pair has 1
    covered_mm: float | int = 1.5  # a covered vertex is at most this far from the scan in the end
    covered_weight: float = 0.25  # and its pair at least this trusted
    covered_degrees: float | int = 75.0  # and its normal at most this far from the sensor's axis
    fold_rounds: int = 3  # further solutions where triangles have turned over
    fold_factor: float = 2.5  # by which l grows around them, each time
    fold_relief: float = 5.0  # by which all weights fall there, each time
    eyelids: EyelidSpec = field(default_factory=EyelidSpec)

    def __post_init__(self) -> None:
        if not self.lengths or len(self.lengths) != len(self.distances):
            raise ValueError(
                f"lengths and distances must have one entry a round; got {len(self.lengths)} and {len(self.distances)}"
            )
        for name in ("lengths", "distances"):
            if not all(0 < value < float("inf") for value in getattr(self, name)):
                raise ValueError(f"{name} must hold positive, finite mm; got {getattr(self, name)}")
        for name in ("anchor", "covered_mm", "covered_weight"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be positive and finite; got {getattr(self, name)}")
        for name in ("normal_degrees", "covered_degrees"):
            if not 0 < getattr(self, name) <= 90:
                raise ValueError(f"{name} must lie in (0, 90]; got {getattr(self, name)}")
        if self.fold_rounds < 0 or min(self.fold_factor, self.fold_relief) < 1:
            raise ValueError(f"fold_rounds must not be negative, fold_factor and fold_relief at least 1; got {self}")


_DEFAULT = DeformSpec()


@dataclass(frozen=True)
class Deformed:
    """M in mm in the MODEL frame, on the model's topology. `covered`: vertices that lie on the scan; the rest is
    invented. `distance`: of covered vertices from the scan along its normal, mm (0 elsewhere). `folded`: triangles
    turned over against the fitted mesh that are left."""

    mesh: Float[Tensor, "b V 3"]
    covered: Bool[Tensor, "b V"]
    distance: Float[Tensor, "b V"]
    folded: Int[Tensor, "b"]


@torch.no_grad()
def deform(
    model: FaceModel,
    fit: ScanFit,
    scans: ScanBatch,
    lifted: Float[Tensor, "b 66 3"],
    spec: DeformSpec = _DEFAULT,
) -> Deformed:
    """Bends every fitted mesh onto its scan. `lifted` are detected landmarks on the scan (mm, sensor's frame, NaN where
    not known), of which the eyelids are used.

    On the device and in the dtype of the scans; scans do not influence each other. Raises ValueError for shapes that do
    not fit or a model without topology. Not differentiable.
    """
    n = len(scans)
    require_shape("lifted", lifted, (n, 66, 3))
    require_shape("fit.rotation", fit.rotation, (n, 3, 3))
    face = deformable_face(model, scans.points)
    fitted = model.vertices(fit.parameters.identity.to(model.dtype), fit.parameters.expression.to(model.dtype))
    posed = fitted.to(scans.points) @ fit.rotation.mT + fit.translation[:, None]
    bending = _Bending(face, posed, fit.rotation[:, :, 2], scans, lifted.to(posed), spec)
    moved, covered, distance, folded = bending.run()
    mesh = (moved - fit.translation[:, None]) @ fit.rotation
    return Deformed(mesh, covered, distance, folded)


_faces: WeakKeyDictionary[FaceModel, dict[tuple[torch.device, torch.dtype], "DeformableFace"]] = WeakKeyDictionary()


def deformable_face(model: FaceModel, like: Tensor) -> "DeformableFace":
    """Made once per model, device and dtype: it takes as long as several scans. Models do not change."""
    made = _faces.setdefault(model, {})
    key = (like.device, like.dtype)
    if key not in made:
        made[key] = DeformableFace(model, like)
    return made[key]


class DeformableFace:
    """What the deformation needs to know of a model's mesh; all of it from the mean face."""

    def __init__(self, model: FaceModel, like: Tensor) -> None:
        topology = model.topology
        if topology is None:
            raise ValueError("model must have a topology (a restricted model has none)")
        mean = model.vertices(model.identity_mean, model.expression_mean).double().cpu()
        triangles = topology.triangles.cpu()
        laplacian = get_backend().laplacian(mean, triangles)
        self.triangles = topology.triangles.to(like.device)
        self.n_vertices = len(mean)
        self.areas = (laplacian.areas / laplacian.areas.median()).to(like.device, _PRECISION)
        self.solver = SmoothSolver(laplacian, device=like.device, dtype=_PRECISION)
        self.scale = 1 / float(laplacian.areas.median())
        skin = torch.zeros(len(mean), dtype=torch.bool)
        skin[outer_skin(mean, triangles)] = True
        self.skin = skin.to(like.device)
        self.passengers = Passengers(mean, triangles, skin).to(like.device)
        self.eyelids = Eyelids(mean, triangles, topology.landmark_vertices.to(like.device))


class _Bending:
    """The rounds of one batch, in the sensor's frame; `posed` is the fitted mesh there, `front` where it faces."""

    def __init__(
        self,
        face: DeformableFace,
        posed: Float[Tensor, "b V 3"],
        front: Float[Tensor, "b 3"],
        scans: ScanBatch,
        lifted: Float[Tensor, "b 66 3"],
        spec: DeformSpec,
    ) -> None:
        self._face, self._posed, self._front, self._scans, self._spec = face, posed, front, scans, spec
        self._lids = face.eyelids.goals(posed, lifted, spec.eyelids)
        # What the sensor can't see of the fitted mesh (the hidden side, the inside of the mouth) has no partner.
        self._seen = visible_vertices(posed, face.triangles) & face.skin
        self._shift = torch.zeros_like(posed)

    def run(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Moved vertices, covered, distance, triangles left over turned."""
        spec = self._spec
        ones = torch.ones_like(self._posed[..., 0])
        for reach, gate in zip(spec.lengths, spec.distances):
            weight, goal = self._goals(self._pairs(gate))
            self._solve(reach * ones, weight, goal)
        self._unfold(spec.lengths[-1] * ones, weight, goal)
        moved = self._moved()
        covered, distance = self._covered(self._pairs(spec.distances[-1]), moved)
        return moved, covered, distance, self._flipped().sum(-1)

    def _unfold(self, length: Float[Tensor, "b V"], weight: Float[Tensor, "b V"], goal: Float[Tensor, "b V 3"]) -> None:
        """Stiffer and less pulled around triangles that have turned over; where that does not help, slivers mostly,
        they are moved as one piece, to which their neighbours are added where they turn over then."""
        spec, face = self._spec, self._face
        for ring in range(spec.fold_rounds):
            flipped = self._flipped()
            if not bool(flipped.any()):
                return
            around = vertices_of(flipped, face.triangles, face.n_vertices, rings=2 + 2 * ring)
            length = torch.where(around, spec.fold_factor * length, length)
            weight = torch.where(around, weight / spec.fold_relief, weight)
            self._solve(length, weight, goal)
        piece = torch.zeros_like(self._flipped())
        for _ in range(_PIECE_ROUNDS):
            flipped = self._flipped()
            if not bool(flipped.any()):
                return
            piece |= flipped
            for _ in range(_PIECE_STEPS):
                self._shift = moved_as_one(self._shift, piece, face.triangles)

    def _flipped(self) -> Bool[Tensor, "b T"]:
        return flipped_triangles(self._moved(), self._posed, self._face.triangles)

    def _moved(self) -> Float[Tensor, "b V 3"]:
        return self._posed + self._shift

    def _pairs(self, gate: float) -> Association:
        moved = self._moved()
        gates = AssociationSpec(distance=gate, normal_degrees=self._spec.normal_degrees)
        pairs = associate(moved, vertex_normals(moved, self._face.triangles), self._scans, gates)
        return pairs._replace(weight=torch.where(self._seen, pairs.weight, 0.0))

    def _goals(self, pairs: Association) -> tuple[Float[Tensor, "b V"], Float[Tensor, "b V 3"]]:
        """Weights and displacements: pairs, lids' edges and the anchor, which share a vertex by weight."""
        towards = torch.where(pairs.weight[..., None] > 0, pairs.point - self._moved(), 0.0)
        weight = pairs.weight.clone()
        pull = weight[..., None] * (self._shift + towards)
        lids = self._lids
        now = self._shift[:, lids.rows]
        shift = torch.stack([now[..., 0], lids.shift, now[..., 2]], -1)
        weight[:, lids.rows] += lids.weight
        pull[:, lids.rows] += lids.weight[..., None] * shift
        weight = weight + self._spec.anchor
        return weight, pull / weight[..., None]

    def _solve(self, length: Float[Tensor, "b V"], weight: Float[Tensor, "b V"], goal: Float[Tensor, "b V 3"]) -> None:
        face = self._face
        answer = face.solver.solve(
            (length.to(_PRECISION) ** 4 * face.scale).contiguous(),
            (weight.to(_PRECISION) * face.areas).contiguous(),
            goal.to(_PRECISION),
            start=self._shift.to(_PRECISION),
        )
        self._shift = face.passengers.carry(self._posed, answer.field.to(self._posed), self._front)

    def _covered(self, pairs: Association, moved: Tensor) -> tuple[Bool[Tensor, "b V"], Float[Tensor, "b V"]]:
        spec = self._spec
        facing = vertex_normals(moved, self._face.triangles)[..., 2]
        covered = (pairs.weight >= spec.covered_weight) & (pairs.distance.abs() <= spec.covered_mm)
        covered &= facing > math.cos(math.radians(spec.covered_degrees))
        return covered, torch.where(covered, pairs.distance, 0.0)
