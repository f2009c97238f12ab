"""Landmarks, contour lines and vertex sets of a mesh from the registered default face, with measures."""

from collections.abc import Mapping
from dataclasses import replace
from statistics import median

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER, MIRROR_66, N_CONTOUR, N_INNER
from facerecon_torch.registration.surface_parts import Surface, make_surface, mesh_parts, outside_vertices
from facerecon_torch.registration.topology.checks import DerivedItem, TopologyLimits, landmark_name, misplaced
from facerecon_torch.registration.topology.fit import Constraints, DefaultFace, ModelFit, TopologyFitSpec, deform_to
from facerecon_torch.registration.topology.transfer import (
    TransferredLine,
    TransferredPoints,
    joined_points,
    transfer_apart,
    transfer_line,
    transfer_set,
)

__all__ = ["Derivation"]

_NEARBY = 3  # number of nearest known landmarks whose held-out error is that of a derived one
_FOLDS = 2
_AROUND_MM = 8.0  # radius within which normals around a landmark are averaged


class Derivation:
    """Tables of `mesh` (its frame, mm) from the fitted default face; `known` maps iBUG points to vertices."""

    def __init__(
        self,
        face: DefaultFace,
        mesh: Surface,
        fit: ModelFit,
        anchors: Constraints,
        known: dict[int, int],
        *,
        fit_spec: TopologyFitSpec,
        limits: TopologyLimits,
    ) -> None:
        self._face, self._mesh, self._limits, self._known = face, mesh, limits, known
        self.placed = deform_to(face, fit, mesh, anchors, fit_spec)
        self._normals = face.normals(self.placed)
        self._upright = fit.alignment.inverse()
        self._used = torch.zeros(len(mesh.vertices), dtype=torch.bool)
        self._used[mesh.triangles.flatten()] = True
        self._outside = self._used & outside_vertices(self._upright.apply(mesh.vertices), mesh.triangles)
        self.disagreement = self._held_out(fit, anchors, fit_spec) | self._contour_disagreement()

    def _held_out(self, fit: ModelFit, anchors: Constraints, spec: TopologyFitSpec) -> dict[int, float]:
        """Distance of each known inner landmark from its place in a deformation that does not use it."""
        error = torch.zeros(len(anchors.vertices), dtype=torch.float64)
        fold = torch.arange(len(anchors.vertices)) % _FOLDS
        for k in range(_FOLDS):
            placed = deform_to(self._face, fit, self._mesh, anchors[fold != k], spec)
            error[fold == k] = (placed[anchors.vertices] - anchors.points).norm(dim=-1)[fold == k]
        points = [IBUG_OF_PAPER[paper] for paper in range(N_INNER) if IBUG_OF_PAPER[paper] in self._known]
        return dict(zip(points, error.tolist()))

    def _contour_disagreement(self) -> dict[int, float]:
        """Distance of each known contour landmark from its line; along the line, definitions differ."""
        distances = {}
        for point in (p for p in self._known if p < N_CONTOUR):
            line = self.placed[self._line(point)]
            distances[point] = _polyline_distance(self._mesh.vertices[self._known[point]], line)
        return distances

    def _line(self, k: int) -> Int[Tensor, "n"]:
        line = self._face.topology.contour_lines[k]
        return line[line >= 0]

    def wrong(self) -> list[int]:
        """The known landmarks (iBUG) beyond their limit, the farthest first."""
        limits = {point: self._known_limit(point) for point in self.disagreement}
        beyond = [point for point, distance in self.disagreement.items() if distance > limits[point]]
        return sorted(beyond, key=lambda point: limits[point] - self.disagreement[point])

    def _known_limit(self, point: int) -> float:
        limits = self._limits
        return limits.contour_disagreement if point < N_CONTOUR else limits.known_disagreement

    def landmarks(self, rim: Tensor | None = None) -> tuple[Int[Tensor, "66"], list[DerivedItem]]:
        """Vertices in the paper's order: known ones as given, the others from the registration; and their items.
        Landmarks of the contour are among the vertices `rim`, if given."""
        rows = self._face.topology.landmark_vertices
        missing = [paper for paper, point in enumerate(IBUG_OF_PAPER) if point not in self._known]
        free = self._used.clone()
        free[list(self._known.values())] = False
        missing.sort(key=lambda paper: paper >= N_INNER)
        n_inner = sum(paper < N_INNER for paper in missing)
        allowed = free if rim is None else free & torch.zeros_like(free).index_fill(0, rim, True)
        parts = [(missing[:n_inner], free), (missing[n_inner:], allowed)]
        derived = joined_points(
            [
                transfer_apart(self.placed[rows[part]], self._normals[rows[part]], self._mesh, mask)
                for part, mask in parts
            ]
        )
        vertices = torch.tensor([self._known.get(point, -1) for point in IBUG_OF_PAPER])
        vertices[missing] = derived.vertices
        given = [paper for paper in range(len(IBUG_OF_PAPER)) if paper not in missing]
        items = [self._known_item(paper) for paper in given]
        turns = self._turns(rows[missing], derived.vertices).tolist()
        items += [
            self._landmark_item(paper, derived, row, turn) for row, (paper, turn) in enumerate(zip(missing, turns))
        ]
        # the partner of an uncertain landmark is not compared with it
        uncertain = {item.index for item in items if item.reason}
        paired = {paper for paper in missing if MIRROR_66[paper] not in uncertain}
        wrong = misplaced(self._upright.apply(self._mesh.vertices[vertices]), paired, self._limits)
        items = [replace(item, reason=item.reason or wrong.get(item.index, "")) for item in items]
        return vertices, sorted(items, key=lambda item: item.index)

    def _known_item(self, paper: int) -> DerivedItem:
        point = IBUG_OF_PAPER[paper]
        distance = self.disagreement[point]
        name, reason = landmark_name(paper), _apart_reason(distance, self._known_limit(point))
        return DerivedItem(kind="known landmark", name=name, index=paper, distance=distance, reason=reason)

    def _turns(self, rows: Int[Tensor, "n"], vertices: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Degrees between the mean normals around vertices of the default face and of the mesh. At the edge of a lid
        normals turn by 100 degrees within 2 mm, so that those of single vertices say nothing."""
        placed = _mean_normals(self.placed, self._normals, rows)
        found = _mean_normals(self._mesh.vertices, self._mesh.normals, vertices)
        return torch.rad2deg(torch.acos((placed * found).sum(-1).clamp(-1, 1)))

    def _landmark_item(self, paper: int, derived: TransferredPoints, row: int, turn: float) -> DerivedItem:
        limits = self._limits
        distance = float(derived.distances[row])
        nearby = self._nearby(self.placed[self._face.topology.landmark_vertices[paper]])
        reasons = []
        if distance > limits.landmark_distance:
            reasons.append(f"the mesh is {distance:.1f} mm away (limit {limits.landmark_distance:g})")
        if turn > limits.landmark_turn:
            reasons.append(f"the mesh faces {turn:.0f} degrees elsewhere (limit {limits.landmark_turn:g})")
        if nearby is not None and nearby > limits.nearby_disagreement:
            reasons.append(f"known landmarks around are {nearby:.1f} mm off (limit {limits.nearby_disagreement:g})")
        name, reason = landmark_name(paper), "; ".join(reasons)
        return DerivedItem(
            kind="landmark", name=name, index=paper, distance=distance, turn=turn, nearby=nearby, reason=reason
        )

    def _nearby(self, place: Float[Tensor, "3"]) -> float | None:
        """Median disagreement of the nearest known landmarks; None where all are far away. A single one that is defined
        elsewhere, such as a corner of the mouth, casts no doubt on the landmarks around it."""
        points = list(self.disagreement)
        vertices = torch.tensor([self._known[point] for point in points])
        distance = (self._mesh.vertices[vertices] - place).norm(dim=-1)
        nearest = distance.argsort()[:_NEARBY]
        errors = [self.disagreement[points[i]] for i in nearest.tolist() if distance[i] <= self._limits.nearby_radius]
        return median(errors) if errors else None

    def lines(self, given: Tensor | None) -> tuple[Int[Tensor, "17 n"], list[DerivedItem]]:
        """Contour lines from the back to the front, padded with -1, and their items. Lines that are `given` are kept
        and, where necessary, reversed."""
        rows = [self._derived_line(k) if given is None else self._given_line(k, given[k]) for k in range(N_CONTOUR)]
        table = torch.nn.utils.rnn.pad_sequence([row for row, _ in rows], batch_first=True, padding_value=-1)
        return table, [item for _, item in rows]

    def _derived_line(self, k: int) -> tuple[Int[Tensor, "n"], DerivedItem]:
        line = self._line(k)
        derived = transfer_line(self.placed[line], self._normals[line], self._mesh, self._outside)
        name, reason = landmark_name(N_INNER + k), self._line_reason(derived)
        return derived.vertices, DerivedItem(
            kind="line", name=name, index=k, distance=derived.distance, coverage=derived.coverage, reason=reason
        )

    def _given_line(self, k: int, given: Int[Tensor, "n"]) -> tuple[Int[Tensor, "m"], DerivedItem]:
        row, line = given[given >= 0], self.placed[self._line(k)]
        points = self._mesh.vertices[row]
        if len(row) > 1 and float((points[-1] - points[0]) @ (line[-1] - line[0])) < 0:
            row = row.flip(0)
        distance = sum(_polyline_distance(point, line) for point in points) / len(row)
        name, reason = landmark_name(N_INNER + k), _apart_reason(distance, self._limits.contour_disagreement)
        return row, DerivedItem(kind="known line", name=name, index=k, distance=distance, reason=reason)

    def _line_reason(self, line: TransferredLine) -> str:
        """Why a derived line is uncertain; empty where it is not."""
        limits = self._limits
        if line.coverage < limits.line_coverage:
            return f"the mesh has {line.coverage:.0%} of it (at least {limits.line_coverage:.0%})"
        if len(line.vertices) < limits.line_vertices:
            return f"{len(line.vertices)} vertices lie along it (at least {limits.line_vertices})"
        if line.distance > limits.line_distance:
            return f"the mesh is {line.distance:.1f} mm away (limit {limits.line_distance:g})"
        return ""

    def sets(self, given: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[DerivedItem]]:
        """`centre_vertices` and `whole_vertices`, and their items; sets that are `given` are kept."""
        topology = self._face.topology
        outer = torch.zeros(topology.n_vertices, dtype=torch.bool)
        outer[self._face.skin] = True
        parts = mesh_parts(self.placed, topology.triangles)
        outer |= parts != parts[topology.triangles.flatten()].mode().values
        placed = make_surface(self.placed, topology.triangles[outer[topology.triangles].all(-1)])
        tables, items = {}, []
        for index, name in enumerate(("centre", "whole")):
            members: Tensor = getattr(topology, f"{name}_vertices")
            derived = transfer_set(members, placed, topology, self._mesh, self._outside)
            own = given.get(f"{name}_vertices")
            tables[f"{name}_vertices"] = derived if own is None else own
            items.append(self._set_item(index, name, members) if own is None else _given_set(index, name, derived, own))
        return tables, items

    def _set_item(self, index: int, name: str, members: Int[Tensor, "n"]) -> DerivedItem:
        limits = self._limits
        nearest = self._mesh.nearest(self.placed[members], self._normals[members], gate=2 * limits.set_distance)
        covered = (nearest.weights > 0) & (nearest.distances <= limits.set_distance)
        coverage = float(covered.double().mean())
        reason = f"the mesh has {coverage:.0%} of it (at least {limits.set_coverage:.0%})"
        reason = reason if coverage < limits.set_coverage else ""
        distance = float(nearest.distances.median())
        return DerivedItem(kind="set", name=name, index=index, distance=distance, coverage=coverage, reason=reason)


def _apart_reason(distance: float, limit: float) -> str:
    """Why a given item is uncertain; empty within the limit, in mm."""
    return f"lies {distance:.1f} mm from its place on the registered face (limit {limit:g})" if distance > limit else ""


def _given_set(index: int, name: str, derived: Int[Tensor, "n"], given: Int[Tensor, "m"]) -> DerivedItem:
    """The item of a given set; `coverage` is the share of it that the derived set holds, too."""
    coverage = float(torch.isin(given, derived).double().mean())
    return DerivedItem(kind="known set", name=name, index=index, distance=0.0, coverage=coverage)


def _polyline_distance(point: Float[Tensor, "3"], line: Float[Tensor, "n 3"]) -> float:
    step = line[1:] - line[:-1]
    fraction = ((point - line[:-1]) * step).sum(-1) / step.square().sum(-1).clamp_min(1e-12)
    nearest = line[:-1] + fraction.clamp(0, 1)[:, None] * step
    return float((nearest - point).norm(dim=-1).min())


def _mean_normals(
    vertices: Float[Tensor, "v 3"], normals: Float[Tensor, "v 3"], rows: Int[Tensor, "n"]
) -> Float[Tensor, "n 3"]:
    """Unit mean normals of the vertices around each of some vertices."""
    around = torch.cdist(vertices[rows], vertices) <= _AROUND_MM
    return normalize(around.to(normals.dtype) @ normals, dim=-1)
