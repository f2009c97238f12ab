"""The topology of an imported model, derived by registering the default face to its mean face.

Landmarks go to the nearest vertex, contour lines to the vertices along them, vertex sets to the vertices below them.
Given landmarks are kept; their distance from the place that the registration gives them measures its accuracy. Every
item carries its measures and, beyond the limits, the reason why it is uncertain.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.errors import ModelFileError
from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER, N_INNER
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.default_face import load_default_face
from facerecon_torch.model.topology import FaceTopology
from facerecon_torch.registration.surface_parts import Surface, make_surface, mesh_parts, outside_vertices
from facerecon_torch.registration.topology.checks import DerivedItem, TopologyLimits
from facerecon_torch.registration.topology.derivation import Derivation
from facerecon_torch.registration.topology.fit import (
    Constraints,
    DefaultFace,
    ModelFit,
    TopologyFitSpec,
    deform_to,
    fit_model_to,
)

__all__ = ["DerivedTopology", "Registration", "TopologySpec", "derive_topology", "register_default_face"]

_FEWEST_KNOWN = 4  # landmarks that the first similarity needs
_SMALLEST_SPREAD = 8.0  # mm, of these landmarks about their second axis; points on a line fix no pose
_LARGE_PART = 0.15  # least share of the visible vertices in a part without landmarks that counts as skin
_LARGEST_TURN = 60.0  # degrees between the axes of both faces
_SCALES = (0.6, 1.6)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologySpec:
    """Settings of the registration, and the limits beyond which an item is uncertain."""

    fit: TopologyFitSpec = field(default_factory=TopologyFitSpec)
    limits: TopologyLimits = field(default_factory=TopologyLimits)


@dataclass(frozen=True, kw_only=True)
class DerivedTopology:
    """A complete topology with its origin and measures.

    `placed` [V, 3] are the default face's vertices registered to the mesh. `disagreement` is the distance in mm of
    every given landmark (by iBUG number) from the place that a registration without it gives. `replaced` are the
    given landmarks that were wrong, with that distance: their vertices are the registration's.
    """

    topology: FaceTopology
    known: dict[int, int]
    items: tuple[DerivedItem, ...]
    disagreement: dict[int, float]
    placed: Tensor
    scale: float  # of the default face in the mesh
    residual: float  # median distance of the fitted default face, mm
    replaced: dict[int, float] = field(default_factory=dict)

    @property
    def uncertain(self) -> tuple[DerivedItem, ...]:
        """The items beyond the limits, each with its reason."""
        return tuple(item for item in self.items if item.reason)


@dataclass(frozen=True, kw_only=True)
class Registration:
    """The default face fitted to a mesh by similarity and weights. `skin` is the mesh without eyeballs and teeth, and
    `anchors` are its known inner landmarks, in its own frame."""

    face: DefaultFace
    skin: Surface
    anchors: Constraints
    fit: ModelFit

    def placed(self, spec: TopologyFitSpec) -> Float[Tensor, "v 3"]:
        """The default face's vertices on the mesh, mm in its frame: the fit, then a smooth displacement."""
        return deform_to(self.face, self.fit, self.skin, self.anchors, spec)


_DEFAULT = TopologySpec()


@torch.no_grad()
def register_default_face(
    mean: Tensor,
    triangles: Tensor,
    known: Mapping[int, int],
    *,
    spec: TopologyFitSpec = _DEFAULT.fit,
    default: FaceModel | None = None,
) -> Registration:
    """The registration of the default face to a mesh. Runs in float64 on the CPU.

    Args:
        mean: [V, 3], the mean face in mm, model axes.
        triangles: [T, 3], counter-clockwise seen from outside.
        known: vertices of some iBUG points (0..67).
        spec: settings.
        default: the face to register, in float64 on the CPU; the free default face if not given.

    Raises:
        ModelFileError: as `derive_topology`.

    Example:
        >>> register_default_face(mean, triangles, known).fit.residual
    """
    face = DefaultFace(load_default_face().double() if default is None else default)
    mesh = make_surface(mean.detach().cpu().double(), triangles.cpu())
    return _registered(face, mesh, dict(known), spec)


@torch.no_grad()
def derive_topology(
    mean: Tensor,
    triangles: Tensor,
    uv: Tensor | None,
    known: Mapping[int, int],
    *,
    given: Mapping[str, Tensor] | None = None,
    listed: Collection[int] = (),
    spec: TopologySpec = _DEFAULT,
    default: FaceModel | None = None,
) -> DerivedTopology:
    """The complete topology of a mesh with some landmarks. Runs in float64 on the CPU.

    Args:
        mean: [V, 3], the mean face in mm, model axes.
        triangles: [T, 3], counter-clockwise seen from outside.
        uv: [V, 2]; without it the mesh is mapped flat, as seen from the front.
        known: vertices of some iBUG points (0..67).
        given: tables of the model that are kept: `inner_landmarks` [49], `contour_lines` [17, L], `centre_vertices`,
            `whole_vertices`; and `contour_rim` [n], vertices among which landmarks of the contour are.
        listed: points of `known` that come from a published list. A few of them that the registration contradicts are
            placed by it instead; with more than a tenth the list is taken for another mesh's, and they are uncertain.
        spec: settings and limits.
        default: the face to register, in float64 on the CPU; the free default face if not given.

    Raises:
        ValueError: tables that do not fit together.
        ModelFileError: fewer than four known inner landmarks, all of them on a line, clockwise triangles, or another
            orientation or unit than the model's.

    Example:
        >>> derived = derive_topology(mean, triangles, None, {36: 1203, 45: 4410, 30: 2807, 48: 1998, 54: 3720})
        >>> derived.topology, [item.reason for item in derived.uncertain]
    """
    given = {} if given is None else {name: table.cpu().clone() for name, table in given.items()}
    inner = given.get("inner_landmarks", torch.empty(0, dtype=torch.int64)).tolist()
    known = {**known, **dict(zip(IBUG_OF_PAPER, inner))}
    _require_mesh(mean, triangles, known)
    known = dict(sorted((int(point), int(vertex)) for point, vertex in known.items()))
    face = DefaultFace(load_default_face().double() if default is None else default)
    mesh = make_surface(mean.detach().cpu().double(), triangles.cpu())
    made, derivation, replaced = _without_wrong(face, mesh, known, listed, spec)
    landmarks, landmark_items = derivation.landmarks(given.get("contour_rim"))
    lines, line_items = derivation.lines(given.get("contour_lines"))
    sets, set_items = derivation.sets(given)
    _require_tables(lines, **sets)
    topology = FaceTopology(
        triangles=mesh.triangles,
        uv=_flat_uv(mesh.vertices) if uv is None else uv.detach().cpu(),
        landmark_vertices=landmarks,
        contour_lines=lines,
        **sets,
    )
    return DerivedTopology(
        topology=topology,
        known={point: vertex for point, vertex in known.items() if point not in replaced},
        items=(*landmark_items, *line_items, *set_items),
        disagreement=derivation.disagreement,
        placed=derivation.placed,
        scale=float(made.fit.alignment.scale),
        residual=made.fit.residual,
        replaced=replaced,
    )


def _without_wrong(
    face: DefaultFace, mesh: Surface, known: dict[int, int], listed: Collection[int], spec: TopologySpec
) -> tuple[Registration, Derivation, dict[int, float]]:
    """The registration without the wrong ones of the `listed` landmarks, and these with their disagreement in mm. With
    more than a few of them the list is another mesh's: none is left out."""
    first = made, derivation = _derived(face, mesh, known, spec)
    replaced: dict[int, float] = {}
    most = max(1, int(spec.limits.replaceable * len(known)))
    while wrong := [point for point in derivation.wrong() if point in listed]:
        if len(replaced) >= most:
            return *first, {}
        replaced[wrong[0]] = derivation.disagreement[wrong[0]]
        known = {point: vertex for point, vertex in known.items() if point not in replaced}
        made, derivation = _derived(face, mesh, known, spec)
    return made, derivation, replaced


def _derived(
    face: DefaultFace, mesh: Surface, known: dict[int, int], spec: TopologySpec
) -> tuple[Registration, Derivation]:
    """The registration through the known landmarks, and what follows from it."""
    made = _registered(face, mesh, known, spec.fit)
    derivation = Derivation(face, made.skin, made.fit, made.anchors, known, fit_spec=spec.fit, limits=spec.limits)
    return made, derivation


def _registered(face: DefaultFace, mesh: Surface, known: dict[int, int], spec: TopologyFitSpec) -> Registration:
    anchors = _anchors(face, mesh, known)
    skin = _skin(mesh, list(known.values()))
    fit = fit_model_to(face, skin, anchors, spec)
    _require_pose(fit)
    return Registration(face=face, skin=skin, anchors=anchors, fit=fit)


def _require_mesh(mean: Tensor, triangles: Tensor, known: Mapping[int, int]) -> None:
    require_shape("mean", mean, (None, 3))
    require_finite("mean", mean)
    require_shape("triangles", triangles, (None, 3))
    outside = {point: vertex for point, vertex in known.items() if not 0 <= vertex < len(mean)}
    if outside or not set(known) <= set(range(68)):
        raise ValueError(f"known must map iBUG points 0..67 to vertices in [0, {len(mean)}); got {outside or known}")


def _anchors(face: DefaultFace, mesh: Surface, known: dict[int, int]) -> Constraints:
    """The known inner landmarks on both faces; contour landmarks are left out, since their definitions differ."""
    papers = [paper for paper in range(N_INNER) if IBUG_OF_PAPER[paper] in known]
    points = mesh.vertices[[known[IBUG_OF_PAPER[paper]] for paper in papers]]
    if len(papers) < _FEWEST_KNOWN:
        raise ModelFileError(
            f"registering the default face needs at least {_FEWEST_KNOWN} known inner landmarks (iBUG 17 to 67); "
            f"got {len(papers)}"
        )
    spread = float(torch.linalg.svdvals(points - points.mean(0))[1]) / len(points) ** 0.5
    if spread < _SMALLEST_SPREAD:
        raise ModelFileError(
            f"the known landmarks must spread over the face, {_SMALLEST_SPREAD:g} mm about their second axis; "
            f"got {spread:.2g} mm"
        )
    outwards = float(mesh.normals[[known[IBUG_OF_PAPER[paper]] for paper in papers], 2].mean())
    if outwards < 0:
        raise ModelFileError(
            f"triangles must be counter-clockwise seen from outside and the face must look along +z; "
            f"at the known landmarks the normals' mean z is {outwards:.2f}"
        )
    return Constraints(vertices=face.topology.landmark_vertices[papers], points=points)


def _skin(mesh: Surface, landmarks: list[int]) -> Surface:
    """The mesh without eyeballs, teeth and other small parts that hold no landmark."""
    parts = mesh_parts(mesh.vertices, mesh.triangles)
    outside = outside_vertices(mesh.vertices, mesh.triangles)
    shares = torch.bincount(parts[outside], minlength=int(parts.max()) + 1) / max(1, int(outside.sum()))
    is_skin = shares >= _LARGE_PART
    is_skin[parts[landmarks]] = True
    return make_surface(mesh.vertices, mesh.triangles[is_skin[parts[mesh.triangles[:, 0]]]])


def _require_pose(fit: ModelFit) -> None:
    if fit.residual == float("inf"):
        raise ModelFileError("the mean face must have a surface at its landmarks; the default face found none near")
    cosine = (torch.trace(fit.alignment.rotation) - 1) / 2
    turn, scale = float(torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))), float(fit.alignment.scale)
    if turn > _LARGEST_TURN:
        raise ModelFileError(
            f"the mean face must look along +z with +y up; by its landmarks it is turned by {turn:.0f} degrees: "
            "axes or landmark vertices belong to another mesh"
        )
    if not _SCALES[0] <= scale <= _SCALES[1]:
        raise ModelFileError(
            f"the mean face must be {_SCALES[0]} to {_SCALES[1]} times as large as the default face; got {scale:.3g}: "
            "the unit of the file or its landmark vertices are others"
        )


def _require_tables(lines: Tensor, centre_vertices: Tensor, whole_vertices: Tensor) -> None:
    empty = [int(k) for k in torch.nonzero(lines[:, 0] < 0).flatten()] if lines.shape[1] else list(range(len(lines)))
    if empty or not len(centre_vertices) or not len(whole_vertices):
        raise ModelFileError(
            "the mesh must lie under every contour line and vertex set of the registered default face; it has nothing "
            f"of lines {empty}, {len(centre_vertices)} vertices of the centre, {len(whole_vertices)} of the whole set"
        )


def _flat_uv(vertices: Float[Tensor, "v 3"]) -> Float[Tensor, "v 2"]:
    low, high = vertices[:, :2].amin(0), vertices[:, :2].amax(0)
    return ((vertices[:, :2] - low) / (high - low).max()).float()
