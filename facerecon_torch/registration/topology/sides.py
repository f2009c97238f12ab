"""Upper and lower sides of mouth and eyes on a mesh: where lips or lids meet, the nearest surface may be the other one.

A vertex belongs to the side whose landmarks are nearer along the surface, where the difference is clear.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER
from facerecon_torch.registration.surface_parts import mesh_edges, welded

__all__ = ["SLITS", "slit_sides"]

SLITS = (
    ((50, 51, 52, 61, 62, 63), (56, 57, 58, 65, 66, 67), 25.0),
    ((37, 38), (40, 41), 12.0),
    ((43, 44), (46, 47), 12.0),
)
"""iBUG points above and below each slit (mouth, both eyes), and the distance from them, mm, up to which sides are
told apart."""
_CLEAR_MM = 3.0  # difference of the distances to both sides from which a vertex belongs to one of them


def slit_sides(
    vertices: Float[Tensor, "v 3"], triangles: Int[Tensor, "t 3"], landmark_vertices: Int[Tensor, "66"]
) -> Int[Tensor, "slits v"]:
    """1 for the vertices above a slit, -1 for those below, 0 for all others; mm."""
    same = welded(vertices)
    a, b = same[mesh_edges(triangles).unique(dim=0)].mT  # type: ignore[no-untyped-call]
    lengths = (vertices[a] - vertices[b]).norm(dim=-1).clamp_min(1e-6).double()
    graph = coo_matrix((lengths.numpy(), (a.numpy(), b.numpy())), shape=(len(vertices),) * 2).tocsr()
    rows = []
    for above, below, reach in SLITS:
        up, down = (_distances(graph, same, landmark_vertices, points, reach) for points in (above, below))
        side = np.where(np.minimum(up, down) <= reach, np.where(up < down, 1, -1), 0)
        with np.errstate(invalid="ignore"):  # both are infinite far from the slit
            side[~(np.abs(up - down) >= _CLEAR_MM)] = 0
        rows.append(torch.from_numpy(side)[same])
    return torch.stack(rows)


def _distances(
    graph: object, same: Int[Tensor, "v"], landmark_vertices: Int[Tensor, "66"], points: Sequence[int], reach: float
) -> np.ndarray:
    """Distances along the edges from the nearest of some landmarks, mm; infinite beyond the reach of both sides."""
    sources = same[landmark_vertices[[IBUG_OF_PAPER.index(point) for point in points]]]
    found: np.ndarray = dijkstra(
        graph, directed=False, indices=sources.numpy(), min_only=True, limit=reach + 2 * _CLEAR_MM
    )
    return found
