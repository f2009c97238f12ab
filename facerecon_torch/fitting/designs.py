"""The 66 landmarks of a restricted model: the rows that they are, their designs for either factor, small ridge solves.

Eq. 7 measures each landmark along directions that differ by face. The designs of the inner landmarks have the
coordinate as leading axis, so that one product with a face's camera turns all of them. The designs of contour rows keep
the three coordinates together, so that a marching contour gathers whole rows.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.fitting.contour import ContourLines, ContourSpec, build_contour_lines, choose_slots, sight_lines
from facerecon_torch.landmarks.scheme import N_INNER
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.bilinear import BilinearModel
from facerecon_torch.model.linear import LinearModel
from facerecon_torch.model.topology import N_CONTOUR

__all__ = ["CONTOURS", "Design", "Designs", "LandmarkRows", "build_designs", "solve_normal", "solve_positive"]

_BLOCK = 16  # faces whose contour rows are computed together: they stay in the second cache of a CPU
CONTOURS = ("fixed", "marching")


class Design(NamedTuple):
    """The map v = matrix g + offset in mm (model frame). `inner` has no batch axis where it is the same for every face;
    `offset` is None where it is zero."""

    inner: Float[Tensor, "*b 3 49 k"]
    contour: Float[Tensor, "b 17 3 k"]
    offset: Float[Tensor, "b 66 3"] | None


@runtime_checkable
class Designs(Protocol):
    """The designs of a model restricted to the 49 inner landmarks and the contour rows, for either factor; `places` are
    the contour rows of each face's contour landmarks."""

    def identity(self, expression: Float[Tensor, "*b expressions"], places: Int[Tensor, "b 17"]) -> Design: ...

    def expression(self, identity: Float[Tensor, "*b identities"], places: Int[Tensor, "b 17"]) -> Design: ...


def build_designs(model: FaceModel) -> Designs:
    """The designs of a model whose first 49 vertices are the inner landmarks. Raises TypeError for a model that is
    neither bilinear nor linear."""
    if isinstance(model, BilinearModel):
        return _BilinearDesigns(model)
    if isinstance(model, LinearModel):
        return _LinearDesigns(model)
    raise TypeError(f"model must be a BilinearModel or a LinearModel; got {type(model).__name__}")


def _take_rows(values: Float[Tensor, "*b rows n"], places: Int[Tensor, "*b 17"]) -> Float[Tensor, "*b 17 n"]:
    """The rows values[..., places, :]. Whole rows of the flattened batch are gathered, which is several times faster
    than a gather of single numbers."""
    n = values.shape[-1]
    first = values.shape[-2] * torch.arange(math.prod(values.shape[:-2]), device=places.device)
    rows = places.reshape(-1, N_CONTOUR) + first[:, None]
    return values.reshape(-1, n).index_select(0, rows.flatten()).reshape(*places.shape, n)


def _take_shared_rows(values: Float[Tensor, "rows n"], places: Int[Tensor, "b 17"]) -> Float[Tensor, "b 17 n"]:
    """The rows values[places, :] of a table that all faces share."""
    return values.index_select(0, places.flatten()).reshape(*places.shape, values.shape[-1])


class _BilinearDesigns:
    """Designs of a bilinear model: one matrix product each, with the core laid out once for either factor."""

    def __init__(self, model: BilinearModel) -> None:
        inner, contour = model.core[:N_INNER].movedim(1, 0), model.core[N_INNER:]
        self._for_identity = tuple(part.movedim(-1, 0).contiguous() for part in (inner, contour))
        self._for_expression = tuple(part.movedim(-2, 0).contiguous() for part in (inner, contour))

    def identity(self, expression: Float[Tensor, "*b expressions"], places: Int[Tensor, "b 17"]) -> Design:
        return self._design(expression, self._for_identity, places)

    def expression(self, identity: Float[Tensor, "*b identities"], places: Int[Tensor, "b 17"]) -> Design:
        return self._design(identity, self._for_expression, places)

    @staticmethod
    def _design(held: Float[Tensor, "*b held"], cores: tuple[Tensor, ...], places: Int[Tensor, "b 17"]) -> Design:
        core, contour_core = cores
        inner = (held @ core.flatten(1)).reshape(*held.shape[:-1], *core.shape[1:])
        rows, _, k = contour_core.shape[1:]
        flat = contour_core.flatten(1)

        def taken(held: Tensor, places: Tensor) -> Tensor:
            made = (held @ flat).reshape(*held.shape[:-1], rows, 3 * k)
            if rows == N_CONTOUR:  # a fixed contour: nothing to choose from
                return made.expand(len(places), -1, -1)
            return _take_rows(made, places) if made.ndim == 3 else _take_shared_rows(made, places)

        contour = taken(held, places) if held.ndim == 1 else _in_blocks(taken, held, places)
        return Design(inner, contour.reshape(len(places), N_CONTOUR, 3, k), None)


def _in_blocks(
    taken: Callable[[Tensor, Tensor], Tensor], held: Float[Tensor, "b held"], places: Int[Tensor, "b 17"]
) -> Float[Tensor, "b 17 n"]:
    """The result of `taken` for all faces: block by block on a CPU, at once elsewhere and in a traced program."""
    if held.device.type != "cpu" or torch.compiler.is_compiling() or len(places) <= _BLOCK:
        return taken(held, places)
    return torch.cat([taken(*block) for block in zip(torch.split(held, _BLOCK), torch.split(places, _BLOCK))])


class _LinearDesigns:
    """Designs of a linear model: the same bases for every face, with an offset from the other factor."""

    def __init__(self, model: LinearModel) -> None:
        self._model = model

    def identity(self, expression: Float[Tensor, "*b expressions"], places: Int[Tensor, "b 17"]) -> Design:
        offset = self._model.identity_design(expression)[1]
        return self._design(self._model.identity_basis, offset, places)

    def expression(self, identity: Float[Tensor, "*b identities"], places: Int[Tensor, "b 17"]) -> Design:
        offset = self._model.expression_design(identity)[1]
        return self._design(self._model.expression_basis, offset, places)

    @staticmethod
    def _design(
        basis: Float[Tensor, "vertices 3 k"], offset: Float[Tensor, "*b vertices 3"], places: Int[Tensor, "b 17"]
    ) -> Design:
        offset = offset.expand(len(places), -1, -1)
        contour = _take_shared_rows(basis[N_INNER:].flatten(1), places).reshape(*places.shape, *basis.shape[1:])
        chosen = torch.cat([offset[:, :N_INNER], _take_rows(offset[:, N_INNER:], places)], dim=1)
        return Design(basis[:N_INNER].movedim(1, 0), contour, chosen)


class LandmarkRows:
    """The vertices that landmarks of `model` may lie on: the 49 inner ones, then the contour rows, each once.

    `vertices` are the vertices to restrict the model to. A contour landmark is given by its place among the contour
    rows. Raises ValueError for a model without topology.
    """

    def __init__(self, model: FaceModel, contour: str, spec: ContourSpec) -> None:
        if model.topology is None:
            raise ValueError("model must have a topology; restricted models have none")
        self._marching = contour == "marching"
        self._spec = spec
        landmarks = model.topology.landmark_vertices
        inner, fixed = landmarks[:N_INNER], landmarks[N_INNER:]
        mean_face = model.vertices(model.identity_mean, model.expression_mean).double()
        self._lines = build_contour_lines(mean_face, model.topology)
        if self._marching:
            contour_rows = self._lines.vertices.unique()  # type: ignore[no-untyped-call]
            self._candidates = torch.searchsorted(contour_rows, self._lines.vertices.contiguous())
        else:
            contour_rows = fixed
            self._candidates = torch.arange(N_CONTOUR, device=fixed.device)[:, None]
        self._contour_rows = contour_rows
        self.vertices = torch.cat([inner, contour_rows])

    def first(self, batch: tuple[int, ...]) -> Int[Tensor, "*b 17"]:
        """The places of the fixed vertices."""
        return self._candidates[:, 0].expand(*batch, N_CONTOUR)

    def march(self, points: Float[Tensor, "*b rows 3"], rotation: Float[Tensor, "*b 3 3"]) -> Int[Tensor, "*b 17"]:
        """The places of the contour under a camera of this rotation; `points` are the rows in mm (model frame)."""
        batch = points.shape[:-2]
        if not self._marching:
            return self.first(tuple(batch))
        contour = points[..., N_INNER:, :]
        lines = self._tables(contour)
        sight = sight_lines(rotation.to(contour.dtype), lines, self._spec)
        # The reach of each row in each direction is less to gather than the points of all candidates.
        reach = (sight.direction @ contour.mT).flatten(-2)
        lowest = len(self._contour_rows) * torch.arange(N_CONTOUR, device=reach.device)[:, None]
        reach = reach.index_select(-1, (self._candidates + lowest).flatten())
        slots = choose_slots(reach.reshape(*batch, *self._candidates.shape), sight, lines)
        places: Tensor = self._candidates.expand(*batch, -1, -1).gather(-1, slots[..., None])[..., 0]
        return places

    def take(self, values: Float[Tensor, "*b rows n"], places: Int[Tensor, "*b 17"]) -> Float[Tensor, "*b 66 n"]:
        """The rows of the 66 landmarks."""
        if not self._marching:
            return values
        return torch.cat([values[..., :N_INNER, :], _take_rows(values[..., N_INNER:, :], places)], dim=-2)

    def contour_vertices(self, places: Int[Tensor, "*b 17"]) -> Int[Tensor, "*b 17"]:
        """The model's vertices at the places."""
        vertices: Tensor = self._contour_rows[places]
        return vertices

    def _tables(self, like: Tensor) -> ContourLines:
        lines = self._lines
        return lines._replace(path=lines.path.to(like.dtype), outward=lines.outward.to(like.dtype))


def solve_normal(
    normal: Float[Tensor, "*b k k"],
    right: Float[Tensor, "*b k"],
    penalty: Float[Tensor, "k"],
    mean: Float[Tensor, "k"],
) -> Float[Tensor, "*b k"]:
    """The minimiser g of |D g - y|^2 + sum_j penalty_j (g_j - mean_j)^2.

    Args:
        normal: D'D.
        right: D'y.
        penalty: positive.
        mean: towards which g is shrunk.

    Example:
        >>> g = solve_normal(design.mT @ design, (design.mT @ y[..., None])[..., 0], penalty, mean)
    """
    return solve_positive(normal + torch.diag(penalty), right + penalty * mean)


def solve_positive(matrix: Float[Tensor, "*b k k"], right: Float[Tensor, "*b k"]) -> Float[Tensor, "*b k"]:
    """The solutions matrix^-1 right by one Cholesky factor each. D'D plus a positive diagonal always has a factor, so
    that no check has to wait for the device."""
    factor = torch.linalg.cholesky_ex(matrix)[0]
    return torch.cholesky_solve(right[..., None], factor)[..., 0]
