"""The bilinear face model: shape = core x identity x expression (Eq. 2, 3)."""

from collections.abc import Sequence
from typing import get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.gauge import Gauge, fix_gauge, row_statistics
from facerecon_torch.model.named_weights import NamedExpressions
from facerecon_torch.model.topology import FaceTopology
from facerecon_torch.runtime.precision import in_own_precision

__all__ = ["BilinearModel"]


class BilinearModel(FaceModel):
    """S = Cr x2 alpha x3 beta (Eq. 2), in mm, model frame.

    The rows of U_id and U_exp give mu and 1/Q of Eq. 7, in the chosen gauge (`model.gauge`).

    Args:
        core: Cr, [V, 3, I, E] in mm.
        identity_rows: U_id, [n_ids, I].
        expression_rows: U_exp, [n_exp, E].
        topology: The tables of the mesh.
        expression_names: One name for each row of U_exp; named weights are relative to the row "neutral".
        gauge: "fixed" keeps the size of the face out of beta; "free" leaves weights as they are.

    Raises:
        TypeError: The arrays are not all float32 or all float64.
        ValueError: The arrays do not fit together, or hold a value that is not finite.
    """

    core: Tensor
    identity_rows: Tensor
    expression_rows: Tensor
    gauge_direction: Tensor

    def __init__(
        self,
        core: Tensor,
        identity_rows: Tensor,
        expression_rows: Tensor,
        topology: FaceTopology | None,
        *,
        expression_names: Sequence[str],
        gauge: Gauge = "fixed",
    ) -> None:
        super().__init__(topology, expression_names)
        _require_factors(core, identity_rows, expression_rows, topology, self.expression_names)
        if gauge not in get_args(Gauge):
            raise ValueError(f'gauge must be "fixed" or "free"; got {gauge!r}')
        self.gauge: Gauge = gauge
        for name, value in zip(("core", "identity_rows", "expression_rows"), (core, identity_rows, expression_rows)):
            self.register_buffer(name, value.detach().contiguous(), persistent=False)
        statistics = row_statistics(self.identity_rows, self.expression_rows, gauge)
        for name, value in statistics._asdict().items():
            name = "gauge_direction" if name == "direction" else name
            self.register_buffer(name, value.to(core.dtype), persistent=False)
        _, rows = fix_gauge(self.identity_mean, self.expression_rows, self.gauge_direction)
        self.named = NamedExpressions(rows, self.expression_names, self._expression_gram())

    def _expression_gram(self) -> Float[Tensor, "expressions expressions"]:
        # mm^2 per vertex on the mean identity: distances between weights become distances between faces.
        design = self.expression_design(self.identity_mean)[0].flatten(0, 1).to(torch.float64)
        return design.mT @ design / self.n_vertices

    @property
    def n_vertices(self) -> int:
        return self.core.shape[0]

    @in_own_precision
    def vertices(
        self, identity: Float[Tensor, "*#b identities"], expression: Float[Tensor, "*#b expressions"]
    ) -> Float[Tensor, "*#b vertices 3"]:
        """Eq. 2. If the whole batch shares one factor, the core is contracted with it first. Otherwise one matrix
        product with the outer products of both factors needs no further array per face."""
        identity_shared = _is_shared(identity)
        if identity_shared and not _is_shared(expression):
            matrix, _ = self.expression_design(identity.reshape(-1))
            flat = expression @ matrix.flatten(0, 1).mT
        elif _is_shared(expression) and not identity_shared:
            matrix, _ = self.identity_design(expression.reshape(-1))
            flat = identity @ matrix.flatten(0, 1).mT
        else:
            pair = (identity[..., :, None] * expression[..., None, :]).flatten(-2)
            flat = pair @ self.core.flatten(2).flatten(0, 1).mT
        batch = torch.broadcast_shapes(identity.shape[:-1], expression.shape[:-1])  # type: ignore[no-untyped-call]
        return flat.reshape(*batch, self.n_vertices, 3)

    def identity_design(
        self, expression: Float[Tensor, "*b expressions"]
    ) -> tuple[Float[Tensor, "*b vertices 3 identities"], Float[Tensor, "*b vertices 3"]]:
        flat = expression @ self.core.flatten(0, 2).mT
        matrix = flat.reshape(*expression.shape[:-1], self.n_vertices, 3, self.n_identity)
        return matrix, self._no_offset(expression)

    def expression_design(
        self, identity: Float[Tensor, "*b identities"]
    ) -> tuple[Float[Tensor, "*b vertices 3 expressions"], Float[Tensor, "*b vertices 3"]]:
        # One small product per coordinate: the core is read once, in place, and never transposed.
        people = identity.reshape(-1, self.n_identity).expand(3 * self.n_vertices, -1, -1)
        matrix = torch.bmm(people, self.core.flatten(0, 1)).movedim(0, 1)
        shape = (*identity.shape[:-1], self.n_vertices, 3, self.n_expression)
        return matrix.reshape(shape), self._no_offset(identity)

    def _no_offset(self, weights: Float[Tensor, "*b n"]) -> Float[Tensor, "*b vertices 3"]:
        return weights.new_zeros(()).expand(*weights.shape[:-1], self.n_vertices, 3)

    def restrict(self, rows: Int[Tensor, "rows"]) -> "BilinearModel":
        return self._with_vertex_arrays({"core": self.core[rows]})

    @in_own_precision
    def fix_gauge(
        self, identity: Float[Tensor, "*#b identities"], expression: Float[Tensor, "*#b expressions"]
    ) -> tuple[Float[Tensor, "*#b identities"], Float[Tensor, "*#b expressions"]]:
        """(c alpha, beta / c), where beta's component along mu_b becomes 1 (model/gauge.py); unchanged if free."""
        if self.gauge == "free":
            return identity, expression
        return fix_gauge(identity, expression, self.gauge_direction)

    @in_own_precision
    def normalised_expression(self, expression: Float[Tensor, "*b expressions"]) -> Float[Tensor, "*b expressions"]:
        """beta in the fixed gauge: it does not depend on the size of the face."""
        return fix_gauge(self.identity_mean, expression, self.gauge_direction)[1]

    def factors(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in ("core", "identity_rows", "expression_rows")}


def _is_shared(weights: Tensor) -> bool:
    return weights.shape[:-1].numel() == 1


def _require_factors(
    core: Tensor,
    identity_rows: Tensor,
    expression_rows: Tensor,
    topology: FaceTopology | None,
    names: tuple[str, ...],
) -> None:
    require_shape("core", core, (None, 3, None, None))
    require_shape("identity_rows", identity_rows, (None, core.shape[-2]))
    require_shape("expression_rows", expression_rows, (None, core.shape[-1]))
    arrays = {"core": core, "identity_rows": identity_rows, "expression_rows": expression_rows}
    for (name, array), ndim in zip(arrays.items(), (4, 2, 2)):
        if array.ndim != ndim or array.numel() == 0:
            raise ValueError(f"{name} must have {ndim} axes and not be empty; got {tuple(array.shape)}")
        if array.dtype not in (torch.float32, torch.float64) or array.dtype != core.dtype:
            raise TypeError(f"{name} must be float32 or float64, all factors alike; got {array.dtype}")
        require_finite(name, array)
    if len(names) != len(expression_rows):
        raise ValueError(f"expression_names must name {len(expression_rows)} rows; got {len(names)} names")
    if topology is not None and topology.n_vertices != len(core):
        raise ValueError(f"topology must have {len(core)} vertices as the core has; got {topology.n_vertices}")
