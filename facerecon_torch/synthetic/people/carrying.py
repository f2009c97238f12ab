"""The default head with the face of another model: its vertices follow the corresponding points of the model's mesh.

A person is first met by a similarity of the mean head. What remains at the corresponding vertices is a displacement
field, which is extended to ears, skull, neck, and the insides of lids and mouth by the least bending,

    min over d of  integral |Laplacian d|^2 + |d|^2 / reach^4,   d given at the corresponding vertices,

so that it fades beyond `reach`. The system is factored once. Eyeballs stay spheres: they follow the lids around them by
a scale and a translation, and lids keep out of them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import sparse
from torch import Tensor

from facerecon_torch.geometry.align import align_similarity
from facerecon_torch.geometry.laplacian import cotangent_laplacian
from facerecon_torch.model.default_face import load_topology
from facerecon_torch.registration.surface_parts import mesh_edges
from facerecon_torch.registration.topology.correspondence import Correspondence
from facerecon_torch.registration.topology.fit import factor_symmetric
from facerecon_torch.registration.topology.sides import slit_sides
from facerecon_torch.synthetic.people.head import PARTS, Head

__all__ = ["HeadCarrier"]

_REACH_MM = 45.0
_STRETCH_MM = 5.0  # beyond this length, the inside of the mouth stretches rather than bends
_WALL_MM, _SPRINGS = 8.0, 3  # distance at which the inside of the mouth still follows the skin; to so many vertices
_EYES = ("left_eye", "right_eye")
_LID_MM = 2.0  # lids that hold an eyeball: distance from it on the mean head
_NEAR_MM = 9.0  # skin that must not enter an eyeball: the same
_GAP_MM = 0.35  # between lid and eyeball, or less where the mean head has less
_EYE_SCALES = (0.88, 1.14)
_CENTRE_STEPS = 4  # of Gauss-Newton; further ones move the eyeball by less than a micrometre


@dataclass(frozen=True)
class _Eye:
    """An eyeball of the mean head, the lids that hold it and the skin around it, with its gap to the eyeball."""

    vertices: Int[Tensor, "e"]
    centre: Float[Tensor, "3"]
    radius: float
    lids: Int[Tensor, "l"]
    near: Int[Tensor, "k"]
    gaps: Float[Tensor, "k"]


class HeadCarrier:
    """Carries meshes of a model to the default head, in the head's frame.

    Args:
        head: the rendered head.
        correspondence: of the default face with the model.

    Example:
        >>> HeadCarrier(load_head(), correspondence).carry(torch.stack([neutral, smile]))
    """

    def __init__(self, head: Head, correspondence: Correspondence) -> None:
        self.correspondence = correspondence
        self._back = correspondence.alignment.inverse()
        self._mean = head.source.mean
        parts = torch.tensor([head.source.part_names.index(name) for name in _EYES])
        body = head.triangles[(head.triangles < head.n_source).all(1) & ~torch.isin(head.parts, parts)]
        used, given = torch.zeros(2, head.n_source, dtype=torch.bool)
        used[body.flatten()] = True
        given[correspondence.vertices] = True
        eyes = [_eye(head, part, used) for part in parts.tolist()]
        self._eyes = tuple(eye for eye in eyes if not bool(given[eye.vertices].all()))
        for eye in self._eyes:
            given[eye.vertices] = False
        self._given = torch.nonzero(given).flatten()
        self._rows = torch.isin(correspondence.vertices, self._given)
        self._free = torch.nonzero(used & ~given).flatten()
        energy = _bending(self._mean, body) + _mouth(head, self._given)
        self._solve, self._coupling = _factored(energy, self._given, self._free)
        moved = torch.nonzero(used | given).flatten()
        self._rest = torch.nonzero(~(used | given)).flatten()
        self._followed = moved[torch.cdist(self._mean[self._rest], self._mean[moved]).argmin(1)]

    @torch.no_grad()
    def carry(self, meshes: Float[Tensor, "n v 3"]) -> Float[Tensor, "n s 3"]:
        """Heads of one person in the head's frame, mm; `meshes` of the model, the first of them neutral."""
        points = self._back.apply(self.correspondence.points(meshes)[:, self._rows])
        person = align_similarity(self._mean[self._given], points[0])
        base = person.apply(self._mean)
        field = torch.zeros(len(meshes), *base.shape)
        field[:, self._given] = points - base[self._given]
        field[:, self._free] = self._extended(field[:, self._given])
        field[:, self._rest] = field[:, self._followed]
        heads = base + field
        for eye in self._eyes:
            self._hold(heads, eye, float(person.scale))
        return heads

    def _extended(self, field: Float[Tensor, "n given 3"]) -> Float[Tensor, "n free 3"]:
        flat = field.transpose(0, 1).flatten(1).double().numpy()
        free = torch.from_numpy(self._solve(-(self._coupling @ flat))).to(field.dtype)
        return free.reshape(-1, *field.shape[::2]).transpose(0, 1)

    def _hold(self, heads: Float[Tensor, "n s 3"], eye: _Eye, scale: float) -> None:
        """Place an eyeball between the lids of the first head, and keep the skin of all heads out of it."""
        before, after = self._mean[eye.lids], heads[0, eye.lids]
        spread, arm = before - before.mean(0), after - after.mean(0)
        ratio = float((spread * arm).sum() / spread.square().sum()) / scale
        ratio = scale * min(max(ratio, _EYE_SCALES[0]), _EYE_SCALES[1])
        distances = ratio * (before - eye.centre).norm(dim=-1)
        centre = _centred(after, distances, after.mean(0) + ratio * (eye.centre - before.mean(0)))
        heads[:, eye.vertices] = centre + ratio * (self._mean[eye.vertices] - eye.centre)
        offset = heads[:, eye.near] - centre
        length = offset.norm(dim=-1, keepdim=True)
        least = ratio * (eye.radius + eye.gaps)[:, None]
        heads[:, eye.near] = centre + offset * (torch.maximum(length, least) / length.clamp_min(1e-6))


def _centred(lids: Float[Tensor, "l 3"], distances: Float[Tensor, "l"], start: Float[Tensor, "3"]) -> Tensor:
    """The point at these distances from the lids in least squares, [3], by Gauss-Newton steps from `start`."""
    centre = start
    for _ in range(_CENTRE_STEPS):
        offset = lids - centre
        length = offset.norm(dim=-1, keepdim=True)
        centre = centre + torch.linalg.lstsq(offset / length, length - distances[:, None]).solution[:, 0]
    return centre


def _eye(head: Head, part: int, used: Bool[Tensor, "s"]) -> _Eye:
    mean = head.source.mean
    vertices = torch.unique(head.triangles[head.parts == part])
    centre = (mean[vertices].amin(0) + mean[vertices].amax(0)) / 2
    radius = float((mean[vertices] - centre).norm(dim=-1).median())
    gap = (mean - centre).norm(dim=-1) - radius
    in_front = used & (mean[:, 2] > centre[2])
    near = torch.nonzero(in_front & (gap < _NEAR_MM)).flatten()
    lids = torch.nonzero(in_front & (gap < _LID_MM)).flatten()
    return _Eye(vertices, centre, radius, lids, near, gap[near].clamp_max(_GAP_MM))


def _bending(mean: Float[Tensor, "s 3"], triangles: Int[Tensor, "t 3"]) -> sparse.csr_matrix:
    """The quadratic form of the bending energy and of the decay beyond the reach."""
    laplacian = cotangent_laplacian(mean, triangles)
    rows = laplacian.bending
    entries = (rows.values.numpy(), rows.columns.numpy(), rows.starts.numpy())
    bending = sparse.csr_matrix(entries, shape=(len(mean), len(mean)))
    return sparse.csr_matrix(bending.T @ bending + sparse.diags(laplacian.areas.numpy() / _REACH_MM**4))


def _mouth(head: Head, given: Int[Tensor, "g"]) -> sparse.csr_matrix:
    """The quadratic form of springs inside the mouth: to neighbours, and to the skin in front on the same side.

    Bending alone would carry a turn of the lips far into the mouth, whose walls lie a few mm behind the skin.
    """
    mean, n = head.source.mean, len(head.source.mean)
    triangles = head.triangles[head.parts == PARTS.index("mouth")]
    edges = mesh_edges(triangles).unique(dim=0)  # type: ignore[no-untyped-call]
    inside = torch.unique(triangles)
    inside = inside[~torch.isin(inside, given)]
    topology = load_topology()
    side = torch.zeros(n, dtype=torch.int64)
    side[: topology.n_vertices] = slit_sides(
        mean[: topology.n_vertices], topology.triangles, topology.landmark_vertices
    )[0]
    distance = torch.cdist(mean[inside], mean[given])
    distance[side[inside][:, None] * side[given] < 0] = torch.inf
    near = distance.topk(_SPRINGS, largest=False)
    weights = torch.exp(-(near.values / _WALL_MM).square()) / (_SPRINGS * _WALL_MM**2)
    springs = torch.stack([inside[:, None].expand(-1, _SPRINGS), given[near.indices]], -1).flatten(0, 1)
    return _springs(edges, torch.full((len(edges),), _STRETCH_MM**-2), n) + _springs(springs, weights.flatten(), n)


def _springs(pairs: Int[Tensor, "p 2"], weights: Float[Tensor, "p"], n: int) -> sparse.csr_matrix:
    """The quadratic form of the weighted squared differences of pairs."""
    a, b = pairs.T.numpy()
    links = sparse.coo_matrix((weights.double().numpy(), (a, b)), shape=(n, n))
    links = links + links.T
    return sparse.csr_matrix(sparse.diags(np.asarray(links.sum(1)).ravel()) - links)


def _factored(
    energy: sparse.csr_matrix, given: Int[Tensor, "g"], free: Int[Tensor, "f"]
) -> tuple[Callable[[np.ndarray], np.ndarray], sparse.csr_matrix]:
    """The solver of the free vertices' system, and the matrix that couples them to the given displacements."""
    block = energy[free.numpy()]
    matrix = sparse.csc_matrix(block[:, free.numpy()])
    return factor_symmetric(matrix).solve, sparse.csr_matrix(block[:, given.numpy()])
