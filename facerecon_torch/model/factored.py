"""Vertices of a bilinear model by fewer multiplications than the dense product needs, for cores of real faces.

The dense product multiplies every vertex coordinate by all I x E products alpha_i beta_j. But expressions move a vertex
along few directions only, which depend on the identity. With mu_b the mean expression, t = <mu_b, beta> /
|mu_b|^2 and beta' = beta - t mu_b, Eq. 2 is, vertex by vertex,

    v = M alpha t + sum_l G_l(alpha) D_l(beta'),   M = Cr x3 mu_b   [3, I],   G_l(alpha) [3],   D_l(beta') one number,

exactly with as many l as T = Cr x3 (1 - mu_b mu_b' / |mu_b|^2), as a matrix [3 I, E], has ranks at that vertex. The
singular vectors of T under the model's own spread of alpha and beta give the best G and D of any number R of terms.
Multiplications per vertex: 3 I + R (E + 3 I + 3) instead of 3 I E.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.model.bilinear import BilinearModel
from facerecon_torch.runtime.precision import in_own_precision

__all__ = ["FactoredVertices", "factor_vertices"]

# The largest error of some million coordinates, in standard deviations, for sums of many small terms.
_LARGEST = 6.0
# Tile of a CPU whose products stay in its cache: the fastest of 32 to 1,024 faces by 256 to 4,071 vertices. A GPU takes
# everything at once.
_TILE_FACES, _TILE_VERTICES = 128, 512
# Least variance of a direction, relative to the mean variance.
_FLOOR = 1e-3
_PAYS = 0.5  # share of the dense product's multiplications; above it, more passes over memory outweigh the saving


@dataclass(frozen=True)
class _Tile:
    """Factors of some vertices, coordinates outermost: column k n + v holds coordinate k of vertex v."""

    vertices: slice
    base: Float[Tensor, "identities columns"]  # M
    moves: Float[Tensor, "expressions terms_n"]  # D
    bends: tuple[Float[Tensor, "identities columns"], ...]  # G_1 ... G_R


class FactoredVertices:
    """S(alpha, beta) of one model, in its dtype and on its device, by `terms` terms per vertex.

    `deviation_mm` is the standard deviation of the error at the worst vertex, over faces distributed as the model's
    rows.
    """

    def __init__(self, model: BilinearModel, terms: int) -> None:
        base, moves, bends, tails = _factors(model, terms)
        self.terms = terms
        self.deviation_mm = float(tails.max())
        self._mean = model.expression_mean / model.expression_mean.square().sum()
        self._direction = model.expression_mean
        self._n_vertices = model.n_vertices
        on_cpu = model.device.type == "cpu"
        parts = _slices(model.n_vertices, _TILE_VERTICES if on_cpu else model.n_vertices)
        self._tiles = [_tile(part, base, moves, bends, model.core) for part in parts]
        self._faces = _TILE_FACES if on_cpu else None

    @in_own_precision
    def __call__(
        self, identity: Float[Tensor, "b identities"], expression: Float[Tensor, "b expressions"]
    ) -> Float[Tensor, "b vertices 3"]:
        """The vertices in mm, model frame."""
        share = (expression @ self._mean)[:, None]
        rest = expression - share * self._direction
        scaled = identity * share
        out = identity.new_empty(len(identity), self._n_vertices, 3)
        for rows in _slices(len(out), self._faces or len(out)):
            for tile in self._tiles:
                out[rows, tile.vertices] = self._moved(tile, identity[rows], scaled[rows], rest[rows])
        return out

    def _moved(
        self,
        tile: _Tile,
        identity: Float[Tensor, "b identities"],
        scaled: Float[Tensor, "b identities"],
        rest: Float[Tensor, "b expressions"],
    ) -> Float[Tensor, "b v 3"]:
        n = len(identity)
        moved = (rest @ tile.moves).reshape(n, self.terms, 1, -1)
        at = (scaled @ tile.base).reshape(n, 3, -1)
        for term, bend in enumerate(tile.bends):
            at.addcmul_((identity @ bend).reshape(n, 3, -1), moved[:, term])
        return at.mT


def factor_vertices(model: BilinearModel, tolerance_mm: float | int = 0.02) -> FactoredVertices | None:
    """The cheapest factors with an error below `tolerance_mm`; None if they save less than half of the multiplications.

    Factoring takes one to two seconds, so it pays from thousands of faces on.

    Args:
        model: The model to factor.
        tolerance_mm: Largest expected error over millions of vertices, for faces distributed as the model's rows.

    Raises:
        ValueError: The tolerance is not positive.
    """
    if not tolerance_mm > 0:
        raise ValueError(f"tolerance_mm must be positive; got {tolerance_mm}")
    spectrum = _tails(model)
    enough = _LARGEST * spectrum.amax(0) <= tolerance_mm
    terms = int(enough.int().argmax()) if bool(enough.any()) else model.n_expression
    identities, expressions = model.n_identity, model.n_expression
    work = 3 * identities + terms * (expressions + 3 * identities + 3)
    if terms == 0 or not bool(enough.any()) or work > _PAYS * 3 * identities * expressions:
        return None
    return FactoredVertices(model, terms)


def _slices(total: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, total)) for first in range(0, total, max(size, 1))]


def _tile(
    part: slice,
    base: Float[Tensor, "v 3 identities"],
    moves: Float[Tensor, "v terms expressions"],
    bends: Float[Tensor, "v 3 terms identities"],
    like: Tensor,
) -> _Tile:
    def columns(rows: Tensor) -> Tensor:  # [n, m, k] -> [k, m n]
        return rows.permute(2, 1, 0).flatten(1).to(like).contiguous()

    terms = moves.shape[1]
    return _Tile(
        part,
        columns(base[part]),
        columns(moves[part]),
        tuple(columns(bends[part, :, term]) for term in range(terms)),
    )


def _spread(variance: Tensor, mean: Tensor | None) -> Float[Tensor, "n n"]:
    """The square root of the second moments of a factor's weights in float64, with a floor."""
    moments = torch.diag(variance.double())
    if mean is not None:
        moments = moments + torch.outer(mean.double(), mean.double())
    values, vectors = torch.linalg.eigh(moments)
    values = values.clamp_min(_FLOOR * float(values.mean()))
    root: Tensor = vectors * values.sqrt() @ vectors.mT
    return root


def _remainder(model: BilinearModel) -> tuple[Float[Tensor, "v 3 i e"], Float[Tensor, "e e"]]:
    """T and the square root of the second moments of beta, in float64."""
    direction = model.expression_mean.double()
    direction = direction / direction.norm()
    core = model.core.double()
    remainder = core - (core @ direction)[..., None] * direction
    return remainder, _spread(model.expression_variance, None)


def _gram(model: BilinearModel) -> tuple[Tensor, Tensor, Tensor]:
    """T, the root of the moments of beta, and the weighted Gram matrix [v, e, e] of every vertex's T."""
    remainder, root = _remainder(model)
    weighted = torch.einsum("ip,vkie->vkpe", _spread(model.identity_variance, model.identity_mean), remainder) @ root
    flat = weighted.flatten(1, 2)
    return remainder, root, flat.mT @ flat


def _tails(model: BilinearModel) -> Float[Tensor, "v terms"]:
    """The standard deviation in mm of the error of R = 0, 1, 2, ... terms at every vertex."""
    values = torch.linalg.eigvalsh(_gram(model)[2]).clamp_min(0)
    left = values.cumsum(-1).flip(-1)
    return torch.cat([left, torch.zeros_like(left[:, :1])], dim=-1).sqrt()


def _factors(model: BilinearModel, terms: int) -> tuple[Tensor, Tensor, Tensor, Float[Tensor, "v"]]:
    """M [v, 3, i], D [v, terms, e], G [v, 3, terms, i], and the standard deviation of the error at every vertex."""
    remainder, root, gram = _gram(model)
    values, vectors = torch.linalg.eigh(gram)
    chosen = vectors[..., model.n_expression - terms :]
    # z = root^-1 beta' has unit spread: T beta' = (T root Y) (Y' z) + remainder
    moves = (torch.linalg.inv(root) @ chosen).mT
    bends = torch.einsum("vkie,ver->vkri", remainder @ root, chosen)
    mean = model.expression_mean.double()
    tails = values[..., : model.n_expression - terms].clamp_min(0).sum(-1).sqrt()
    return model.core.double() @ mean, moves, bends, tails
