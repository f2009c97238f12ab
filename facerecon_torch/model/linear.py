"""The linear face model: mean + identity basis + expression basis (Eq. 1a, 1b)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.named_weights import NamedExpressions
from facerecon_torch.model.topology import FaceTopology
from facerecon_torch.runtime.precision import in_own_precision

__all__ = ["LinearModel"]


class LinearModel(FaceModel):
    """S = mean + A_id alpha + A_exp beta (Eq. 1a), in mm, model frame; texture T = T_mean + A_tex gamma (Eq. 1b).

    Args:
        mean: [V, 3] in mm.
        identity_basis: A_id, [V, 3, I] in mm.
        expression_basis: A_exp, [V, 3, E] in mm.
        topology: The tables of the mesh.
        identity_mean: mu of alpha, [I]; 0 by default.
        identity_variance: 1/Q of Eq. 7 for alpha, [I]; 1 by default, for a basis scaled to standard deviations.
        expression_mean: mu of beta, [E]; 0 by default.
        expression_variance: 1/Q of Eq. 7 for beta, [E]; 1 by default.
        expression_rows: beta of every named expression, [n, E]; the identity matrix for blendshapes.
        expression_names: One name for each of these rows; without rows there are no named weights.
        texture_mean: T_mean, [V, 3], RGB in [0, 1]; given together with `texture_basis` or not at all.
        texture_basis: A_tex, [V, 3, T].

    Raises:
        TypeError: The arrays are not all float32 or all float64.
        ValueError: The arrays do not fit together, or hold a value that is not finite.
    """

    mean: Tensor
    identity_basis: Tensor
    expression_basis: Tensor
    expression_rows: Tensor
    texture_mean: Tensor | None
    texture_basis: Tensor | None

    def __init__(
        self,
        mean: Tensor,
        identity_basis: Tensor,
        expression_basis: Tensor,
        topology: FaceTopology | None,
        *,
        identity_mean: Tensor | None = None,
        identity_variance: Tensor | None = None,
        expression_mean: Tensor | None = None,
        expression_variance: Tensor | None = None,
        expression_rows: Tensor | None = None,
        expression_names: Sequence[str] = (),
        texture_mean: Tensor | None = None,
        texture_basis: Tensor | None = None,
    ) -> None:
        super().__init__(topology, expression_names)
        require_shape("identity_basis", identity_basis, (None, 3, None))
        require_shape("expression_basis", expression_basis, (None, 3, None))
        ones = [identity_basis.new_ones(basis.shape[-1]) for basis in (identity_basis, expression_basis)]
        arrays = {
            "mean": mean,
            "identity_basis": identity_basis,
            "expression_basis": expression_basis,
            "identity_mean": 0 * ones[0] if identity_mean is None else identity_mean,
            "identity_variance": ones[0] if identity_variance is None else identity_variance,
            "expression_mean": 0 * ones[1] if expression_mean is None else expression_mean,
            "expression_variance": ones[1] if expression_variance is None else expression_variance,
            "expression_rows": ones[1].new_zeros(0, len(ones[1])) if expression_rows is None else expression_rows,
        }
        texture = {"texture_mean": texture_mean, "texture_basis": texture_basis}
        _require_arrays(arrays, texture, topology, self.expression_names)
        for name, value in {**arrays, **texture}.items():
            self.register_buffer(name, None if value is None else value.detach().contiguous(), persistent=False)
        design = self.expression_basis.flatten(0, 1).to(torch.float64)
        self.named = NamedExpressions(self.expression_rows, self.expression_names, design.mT @ design / len(mean))

    @property
    def n_vertices(self) -> int:
        return self.mean.shape[0]

    @in_own_precision
    def vertices(
        self, identity: Float[Tensor, "*#b identities"], expression: Float[Tensor, "*#b expressions"]
    ) -> Float[Tensor, "*#b vertices 3"]:
        """Eq. 1a."""
        return self.mean + _weighted(self.identity_basis, identity) + _weighted(self.expression_basis, expression)

    @in_own_precision
    def colours(self, texture: Float[Tensor, "*b textures"]) -> Float[Tensor, "*b vertices 3"]:
        """The vertex colours (Eq. 1b), RGB, not clipped to [0, 1]. Raises ValueError for a model without texture."""
        if self.texture_mean is None or self.texture_basis is None:
            raise ValueError("colours need a model with texture_mean and texture_basis; this one has neither")
        return self.texture_mean + _weighted(self.texture_basis, texture)

    def identity_design(
        self, expression: Float[Tensor, "*b expressions"]
    ) -> tuple[Float[Tensor, "*b vertices 3 identities"], Float[Tensor, "*b vertices 3"]]:
        matrix = self.identity_basis.expand(*expression.shape[:-1], *self.identity_basis.shape)
        return matrix, self.mean + _weighted(self.expression_basis, expression)

    def expression_design(
        self, identity: Float[Tensor, "*b identities"]
    ) -> tuple[Float[Tensor, "*b vertices 3 expressions"], Float[Tensor, "*b vertices 3"]]:
        matrix = self.expression_basis.expand(*identity.shape[:-1], *self.expression_basis.shape)
        return matrix, self.mean + _weighted(self.identity_basis, identity)

    def restrict(self, rows: Int[Tensor, "rows"]) -> "LinearModel":
        names = ("mean", "identity_basis", "expression_basis", "texture_mean", "texture_basis")
        return self._with_vertex_arrays({n: a[rows] for n, a in self.factors().items() if n in names})

    def factors(self) -> dict[str, Tensor]:
        return {name: array for name, array in self._buffers.items() if array is not None}


def _weighted(basis: Float[Tensor, "vertices 3 n"], weights: Float[Tensor, "*b n"]) -> Float[Tensor, "*b vertices 3"]:
    return (weights @ basis.flatten(0, 1).mT).reshape(*weights.shape[:-1], basis.shape[0], 3)


def _require_arrays(
    arrays: dict[str, Tensor],
    texture: dict[str, Tensor | None],
    topology: FaceTopology | None,
    names: tuple[str, ...],
) -> None:
    n, (n_identity, n_expression) = (
        len(arrays["mean"]),
        (arrays[name].shape[-1] for name in ("identity_basis", "expression_basis")),
    )
    shapes: dict[str, tuple[int | None, ...]] = {
        "mean": (n, 3),
        "identity_basis": (n, 3, n_identity),
        "expression_basis": (n, 3, n_expression),
        "identity_mean": (n_identity,),
        "identity_variance": (n_identity,),
        "expression_mean": (n_expression,),
        "expression_variance": (n_expression,),
        "expression_rows": (len(names), n_expression),
        "texture_mean": (n, 3),
        "texture_basis": (n, 3, None),
    }
    if (texture["texture_mean"] is None) != (texture["texture_basis"] is None):
        raise ValueError("texture_mean and texture_basis must be given together; got only one of them")
    present = {**arrays, **{name: array for name, array in texture.items() if array is not None}}
    for name, array in present.items():
        require_shape(name, array, shapes[name])
        if array.ndim != len(shapes[name]):
            raise ValueError(f"{name} must have {len(shapes[name])} axes; got {tuple(array.shape)}")
        if array.dtype not in (torch.float32, torch.float64) or array.dtype != arrays["mean"].dtype:
            raise TypeError(f"{name} must be float32 or float64, all arrays alike; got {array.dtype}")
        require_finite(name, array)
    for name in ("identity_variance", "expression_variance"):
        if not bool((arrays[name] > 0).all()):
            raise ValueError(f"{name} must be positive; the smallest is {float(arrays[name].min())}")
    if topology is not None and topology.n_vertices != n:
        raise ValueError(f"topology must have {n} vertices as the mean has; got {topology.n_vertices}")
