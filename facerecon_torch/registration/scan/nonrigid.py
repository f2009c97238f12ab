"""M: the fitted mesh bent smoothly onto the scan, where the scan has data.

The displacement d of the fitted mesh S* minimises  integral l^4 |Laplace d|^2 + integral w |d - g|^2.  g leads from a
vertex to the scan along the scan's normal, and w is the weight of that pair; a weak weight pulls every vertex towards
d = 0. The length l is the width below which detail is smoothed away. Pairs and displacement are computed in turn, with
falling l and gates. Rims and holes have no pairs: the mesh over them follows its surroundings.
"""

import math
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.checks import require_positive, require_shape
from facerecon_torch.geometry.laplacian import SmoothSolver
from facerecon_torch.geometry.mesh_queries import get_backend, visible_vertices
from facerecon_torch.geometry.normals import triangle_normals, vertex_normals
from facerecon_torch.model.base import FaceModel
from facerecon_torch.registration.scan.eyes import EyelidGoals, Eyelids, EyelidSpec, RigidParts
from facerecon_torch.registration.scan.icp import Association, AssociationSpec, ScanFit, associate
from facerecon_torch.registration.scan.surface import ScanBatch
from facerecon_torch.registration.surface_parts import outer_skin
from facerecon_torch.structures import TensorRecord

__all__ = ["DeformSpec", "Deformed", "deform", "flipped_triangles", "moved_as_one", "vertices_of"]

_RIGID_ROUNDS, _RIGID_STEPS = 8, 8
_PRECISION = torch.float32  # of the smooth fields: displacements of millimetres, good to micrometres


@dataclass(frozen=True, slots=True, kw_only=True)
class DeformSpec:
    """Lengths, gates and weights of the deformation; one round per entry of `lengths` and `distances`.

    Raises:
        ValueError: a number outside its range, or `lengths` and `distances` of different length.
    """

    lengths: tuple[float, ...] = (8.0, 5.0, 3.5, 2.5)  # mm: l
    distances: tuple[float, ...] = (6.0, 5.0, 4.0, 3.0)  # mm: gates of the pairs
    normal_degrees: float | int = 60.0  # gate on the angle between the normals of a pair
    anchor: float = 0.003  # weight towards the fitted mesh; a full pair has 1
    covered_mm: float | int = 1.5  # largest distance of a covered vertex from the scan in the end
    covered_weight: float = 0.25  # least weight of a covered vertex's pair
    covered_degrees: float | int = 75.0  # largest angle between a covered vertex's normal and the sensor's axis
    fold_rounds: int = 3  # further solutions where triangles are flipped
    fold_factor: float = 2.5  # growth of l around them, each time
    fold_relief: float = 5.0  # fall of all weights there, each time
    eyelids: EyelidSpec = field(default_factory=EyelidSpec)

    def __post_init__(self) -> None:
        if not self.lengths or len(self.lengths) != len(self.distances):
            raise ValueError(
                f"lengths and distances must have one entry a round; got {len(self.lengths)} and {len(self.distances)}"
            )
        for name in ("lengths", "distances"):
            if not all(0 < value < float("inf") for value in getattr(self, name)):
                raise ValueError(f"{name} must hold positive, finite mm; got {getattr(self, name)}")
        require_positive(self, "anchor", "covered_mm", "covered_weight")
        for name in ("normal_degrees", "covered_degrees"):
            if not 0 < getattr(self, name) <= 90:
                raise ValueError(f"{name} must lie in (0, 90]; got {getattr(self, name)}")
        if self.fold_rounds < 0 or min(self.fold_factor, self.fold_relief) < 1:
            raise ValueError(f"fold_rounds must not be negative, fold_factor and fold_relief at least 1; got {self}")


_DEFAULT = DeformSpec()


@dataclass(frozen=True, kw_only=True)
class Deformed(TensorRecord):
    """M in mm in the MODEL frame, on the model's topology.

    `covered` marks the vertices that lie on the scan; the others are extrapolated. `flipped` counts the triangles that
    are still flipped against the fitted mesh.
    """

    mesh: Float[Tensor, "b V 3"]
    covered: Bool[Tensor, "b V"]
    flipped: Int[Tensor, "b"]


@torch.no_grad()
def deform(
    model: FaceModel,
    fit: ScanFit,
    scans: ScanBatch,
    labelled: Tensor,
    lifted: Tensor,
    spec: DeformSpec = _DEFAULT,
) -> Deformed:
    """Every fitted mesh bent onto its scan, on the device and in the dtype of the scans. Not differentiable.

    A scan influences no other.

    Args:
        model: a model with topology.
        fit: from `fit_scans`.
        scans: the scans that were fitted.
        labelled: [b, 66, 3], the data set's own landmarks (mm, sensor's frame, NaN where not known), whose eyelids are
            used.
        lifted: [b, 66, 3], detected landmarks on the scan, likewise.
        spec: lengths, gates and weights.

    Raises:
        ValueError: shapes that do not fit, or a model without topology.

    Example:
        >>> deform(model, fit_scans(model, scans, labelled, lifted), scans, labelled, lifted).mesh
    """
    n = len(scans)
    for name, points in (("labelled", labelled), ("lifted", lifted)):
        require_shape(name, points, (n, 66, 3))
    require_shape("fit.rotation", fit.rotation, (n, 3, 3))
    face = _deformable_face(model, scans.points)
    fitted = model.vertices(fit.parameters.identity.to(model.dtype), fit.parameters.expression.to(model.dtype))
    posed = fitted.to(scans.points) @ fit.rotation.mT + fit.translation[:, None]
    lids = face.eyelids.goals(posed, lifted.to(posed), labelled.to(posed), spec.eyelids)
    moved, covered, flipped = _Bending(face, posed, fit.rotation[:, :, 2], scans, lids, spec).run()
    return Deformed(mesh=(moved - fit.translation[:, None]) @ fit.rotation, covered=covered, flipped=flipped)


_faces: WeakKeyDictionary[FaceModel, dict[tuple[torch.device, torch.dtype], "_DeformableFace"]] = WeakKeyDictionary()


def _deformable_face(model: FaceModel, like: Tensor) -> "_DeformableFace":
    """The tables of a model, computed once per model, device and dtype: they take as long as several scans."""
    tables = _faces.setdefault(model, {})
    key = (like.device, like.dtype)
    if key not in tables:
        tables[key] = _DeformableFace(model, like)
    return tables[key]


class _DeformableFace:
    """Tables that the deformation needs of a model's mesh, from its mean face."""

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
        self.rigid_parts = RigidParts(mean, triangles, skin).to(like.device)
        self.eyelids = Eyelids(mean, triangles, topology.landmark_vertices.to(like.device))


class _Bending:
    """The rounds of one batch in the sensor's frame: `posed` is the fitted mesh, `front` the direction it faces."""

    def __init__(
        self,
        face: _DeformableFace,
        posed: Float[Tensor, "b V 3"],
        front: Float[Tensor, "b 3"],
        scans: ScanBatch,
        lids: EyelidGoals,
        spec: DeformSpec,
    ) -> None:
        self._face, self._posed, self._front, self._scans, self._spec = face, posed, front, scans, spec
        self._lids = lids
        # Vertices hidden from the sensor (the far side, the inside of the mouth) have no partner.
        self._visible = visible_vertices(posed, face.triangles) & face.skin
        self._shift = torch.zeros_like(posed)

    def run(self) -> tuple[Float[Tensor, "b V 3"], Bool[Tensor, "b V"], Int[Tensor, "b"]]:
        """Moved vertices, covered vertices, and the number of triangles that are still flipped."""
        spec = self._spec
        ones = torch.ones_like(self._posed[..., 0])
        for reach, gate in zip(spec.lengths, spec.distances):
            weight, goal = self._goals(self._pairs(gate))
            self._solve(reach * ones, weight, goal)
        self._unflip(spec.lengths[-1] * ones, weight, goal)
        moved = self._moved()
        return moved, self._covered(self._pairs(spec.distances[-1]), moved), self._flipped().sum(-1)

    def _unflip(self, length: Float[Tensor, "b V"], weight: Float[Tensor, "b V"], goal: Float[Tensor, "b V 3"]) -> None:
        """Undo flipped triangles: solve again, stiffer and with smaller weights around them. Triangles that are still
        flipped, mostly slivers, are moved rigidly; neighbours that flip thereby join them."""
        spec, face = self._spec, self._face
        for ring in range(spec.fold_rounds):
            flipped = self._flipped()
            if not bool(flipped.any()):
                return
            around = vertices_of(flipped, face.triangles, face.n_vertices, rings=2 + 2 * ring)
            length = torch.where(around, spec.fold_factor * length, length)
            weight = torch.where(around, weight / spec.fold_relief, weight)
            self._solve(length, weight, goal)
        rigid = torch.zeros_like(self._flipped())
        for _ in range(_RIGID_ROUNDS):
            flipped = self._flipped()
            if not bool(flipped.any()):
                return
            rigid |= flipped
            for _ in range(_RIGID_STEPS):
                self._shift = moved_as_one(self._shift, rigid, face.triangles)

    def _flipped(self) -> Bool[Tensor, "b T"]:
        return flipped_triangles(self._moved(), self._posed, self._face.triangles)

    def _moved(self) -> Float[Tensor, "b V 3"]:
        return self._posed + self._shift

    def _pairs(self, gate: float) -> Association:
        moved = self._moved()
        gates = AssociationSpec(distance=gate, normal_degrees=self._spec.normal_degrees)
        pairs = associate(moved, vertex_normals(moved, self._face.triangles), self._scans, gates)
        return pairs._replace(weight=torch.where(self._visible, pairs.weight, 0.0))

    def _goals(self, pairs: Association) -> tuple[Float[Tensor, "b V"], Float[Tensor, "b V 3"]]:
        """Weights and goal displacements: the weighted mean of pairs, edges of the lids and the anchor."""
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
        solution = face.solver.solve(
            (length.to(_PRECISION) ** 4 * face.scale).contiguous(),
            (weight.to(_PRECISION) * face.areas).contiguous(),
            goal.to(_PRECISION),
            start=self._shift.to(_PRECISION),
        )
        self._shift = face.rigid_parts.carry(self._posed, solution.field.to(self._posed), self._front)

    def _covered(self, pairs: Association, moved: Float[Tensor, "b V 3"]) -> Bool[Tensor, "b V"]:
        spec = self._spec
        facing = vertex_normals(moved, self._face.triangles)[..., 2]
        covered = (pairs.weight >= spec.covered_weight) & (pairs.distance.abs() <= spec.covered_mm)
        return covered & (facing > math.cos(math.radians(spec.covered_degrees)))


def flipped_triangles(
    deformed: Float[Tensor, "*b V 3"], original: Float[Tensor, "*b V 3"], triangles: Int[Tensor, "T 3"]
) -> Bool[Tensor, "*b T"]:
    """Whether each triangle's normal points away from its normal in the original mesh; both meshes in one frame.

    A triangle without area in either mesh has no normal and is not flipped.
    """
    return (triangle_normals(deformed, triangles) * triangle_normals(original, triangles)).sum(-1) < 0


def vertices_of(
    marked: Bool[Tensor, "*b T"], triangles: Int[Tensor, "T 3"], n_vertices: int, *, rings: int
) -> Bool[Tensor, "*b V"]:
    """Whether each vertex is a corner of a marked triangle or at most `rings` edges away from one."""
    for ring in range(rings + 1):
        touched = torch.zeros(*marked.shape[:-1], n_vertices, dtype=torch.int32, device=marked.device)
        for corner in range(3):
            touched.index_add_(-1, triangles[:, corner], marked.to(torch.int32))
        if ring < rings:
            marked = (touched > 0)[..., triangles].any(-1)
    return touched > 0


def moved_as_one(
    shift: Float[Tensor, "*b V 3"], marked: Bool[Tensor, "*b T"], triangles: Int[Tensor, "T 3"]
) -> Float[Tensor, "*b V 3"]:
    """Displacements in which the corners of each marked triangle take their mean, so that it keeps its normal. A corner
    of several marked triangles takes the mean of their means."""
    means = shift[..., triangles, :].mean(-2) * marked[..., None]
    total, count = torch.zeros_like(shift), torch.zeros_like(shift[..., :1])
    for corner in range(3):
        total.index_add_(-2, triangles[:, corner], means)
        count.index_add_(-2, triangles[:, corner], marked[..., None].to(shift.dtype))
    return torch.where(count > 0, total / count.clamp_min(1), shift)
