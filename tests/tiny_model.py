"""A tiny procedural face: no data, no licence, built in milliseconds.

The mesh is an ellipsoid with a nose, eye sockets, lips and a jaw, triangulated over its longitude and
latitude. All 66 landmarks and 17 contour lines are true vertices. It has the proportions of a head in mm, not
its looks.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import Delaunay
from torch import Tensor

from facerecon_torch.model.bilinear import BilinearModel
from facerecon_torch.model.gauge import Gauge
from facerecon_torch.model.hosvd import hosvd
from facerecon_torch.model.linear import LinearModel
from facerecon_torch.model.topology import N_CONTOUR, FaceTopology

__all__ = ["tiny_bilinear", "tiny_linear", "tiny_topology", "with_gauge"]

_RADII = (75.0, 105.0, 90.0)  # mm: half width, half height, depth
_N_PEOPLE = 24
_NAMES = ("neutral", "jawOpen", "smile", "browRaise", "eyesClosed", "pucker", "frown")


def tiny_bilinear(n_identity: int = 6, n_expression: int = 4) -> BilinearModel:
    """A BilinearModel of about 300 vertices in float32: 24 people x 7 expressions by HOSVD.

    At most 24 identity and 7 expression factors; ValueError beyond.
    """
    tensor = _data_tensor()
    answer = hosvd(tensor, n_identity, n_expression)
    core = answer.core.reshape(-1, 3, n_identity, n_expression)
    factors = (core.float(), answer.identity_rows.float(), answer.expression_rows.float())
    return BilinearModel(*factors, tiny_topology(), expression_names=_NAMES)


def tiny_linear(n_identity: int = 6) -> LinearModel:
    """A LinearModel on the same mesh: principal components of the people (unit variance), one blendshape per
    expression, and a two-component texture."""
    tensor = _data_tensor()
    n_vertices = len(tensor) // 3
    neutral = tensor[:, :, 0]
    mean = neutral.mean(dim=1)
    components, deviations, _ = torch.linalg.svd(neutral - mean[:, None], full_matrices=False)
    basis = components[:, :n_identity] * deviations[:n_identity] / math.sqrt(_N_PEOPLE)
    shapes = (tensor[:, :, 1:] - tensor[:, :, :1]).mean(dim=1)
    n_shapes = shapes.shape[1]
    rows = torch.cat([torch.zeros(1, n_shapes), torch.eye(n_shapes)])
    tint = torch.tensor([[0.10, 0.02], [0.08, 0.03], [0.07, -0.04]])
    return LinearModel(
        mean.reshape(n_vertices, 3).float(),
        basis.reshape(n_vertices, 3, -1).float(),
        shapes.reshape(n_vertices, 3, -1).float(),
        tiny_topology(),
        expression_mean=torch.full((n_shapes,), 0.1),
        expression_variance=torch.full((n_shapes,), 0.05),
        expression_rows=rows,
        expression_names=_NAMES,
        texture_mean=torch.tensor([0.75, 0.55, 0.45]).expand(n_vertices, 3),
        texture_basis=tint.expand(n_vertices, 3, 2),
    )


def with_gauge(model: BilinearModel, gauge: Gauge) -> BilinearModel:
    """The same shapes with mu and 1/Q of another gauge."""
    factors = (model.core, model.identity_rows, model.expression_rows, model.topology)
    return BilinearModel(*factors, expression_names=model.expression_names, gauge=gauge)


def tiny_topology() -> FaceTopology:
    """Triangles, texture coordinates, 66 landmarks, 17 contour lines and the two vertex sets of the tiny
    face."""
    chart, landmarks, lines = _chart()
    triangles = _triangles(chart)
    spread = (chart - chart.amin(dim=0)) / (chart.amax(dim=0) - chart.amin(dim=0))
    length = max(len(line) for line in lines)
    padded = torch.tensor([line + [-1] * (length - len(line)) for line in lines])
    central = (chart[:, 0].abs() < 45) & (chart[:, 1].abs() < 50)
    return FaceTopology(
        triangles=triangles,
        uv=spread.float(),
        landmark_vertices=torch.tensor(landmarks),
        contour_lines=padded,
        centre_vertices=torch.nonzero(central).flatten(),
        whole_vertices=torch.arange(len(chart)),
    )


def _inner_landmarks() -> Float[Tensor, "49 2"]:
    """The inner landmarks' (x, y) in mm on the mean face, in paper order (iBUG 17..67 without 60 and 64)."""
    right_brow = [(-54, 40), (-46, 47), (-36, 50), (-26, 48), (-16, 43)]
    bridge = [(0, 30), (0, 20), (0, 10), (0, 0)]
    nostrils = [(-14, -10), (-7, -13), (0, -15), (7, -13), (14, -10)]
    right_eye = [(-45, 28), (-38, 32), (-28, 32), (-20, 27), (-28, 23), (-38, 23)]
    upper_lip = [(-25, -38), (-16, -33), (-6, -30), (0, -32), (6, -30), (16, -33), (25, -38)]
    lower_lip = [(16, -46), (7, -50), (0, -51), (-7, -50), (-16, -46)]
    inner_lips = [(-8, -36.5), (0, -37), (8, -36.5), (8, -41), (0, -41.5), (-8, -41)]
    left_brow = [(-x, y) for x, y in reversed(right_brow)]
    left_eye = [(-right_eye[k][0], right_eye[k][1]) for k in (3, 2, 1, 0, 5, 4)]
    points = [*right_brow, *left_brow, *bridge, *nostrils, *right_eye, *left_eye, *upper_lip, *lower_lip, *inner_lips]
    return torch.tensor(points, dtype=torch.float64)


def _chart() -> tuple[Float[Tensor, "v 2"], list[int], list[list[int]]]:
    """(longitude, latitude) of every vertex in degrees, the landmarks' vertices, and the contour lines'
    vertices."""
    inner = _inner_landmarks()
    latitude = torch.asin(inner[:, 1] / _RADII[1])
    longitude = torch.asin(inner[:, 0] / (_RADII[0] * latitude.cos()))
    points = torch.rad2deg(torch.stack([longitude, latitude], dim=-1)).tolist()
    landmarks = list(range(len(points)))
    lines = []
    for side in (torch.arange(N_CONTOUR) / 8 - 1).tolist():
        angle = side * math.pi / 2
        jaw = (78 * math.sin(angle), 4 - 60 * math.cos(angle))
        outwards = (7 * math.sin(angle), -5 * math.cos(angle))
        steps = (3, 2, 1, 0, -1, -2) if abs(side) > 0.5 else (2, 1, 0, -1)
        landmarks.append(len(points) + steps.index(0))
        lines.append(list(range(len(points), len(points) + len(steps))))
        points += [(jaw[0] + k * outwards[0], jaw[1] + k * outwards[1]) for k in steps]
    return _filled(torch.tensor(points, dtype=torch.float64)), landmarks, lines


def _filled(points: Float[Tensor, "n 2"]) -> Float[Tensor, "v 2"]:
    """The points and those of a regular grid that lie at least 7 degrees away from all of them."""
    columns, rows = torch.arange(-108.0, 109.0, 12.0), torch.arange(-76.0, 66.0, 10.0)
    grid = torch.cartesian_prod(columns, rows).to(torch.float64)
    return torch.cat([points, grid[torch.cdist(grid, points).amin(dim=1) > 7]])


def _triangles(chart: Float[Tensor, "v 2"]) -> Tensor:
    corners = torch.from_numpy(Delaunay(chart.numpy()).simplices.astype(np.int64))
    a, b, c = (chart[corners[:, k]] for k in range(3))
    ab, ac = b - a, c - a
    clockwise = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0] < 0
    return torch.where(clockwise[:, None], corners[:, [0, 2, 1]], corners)


def _bump(
    chart: Float[Tensor, "v 2"], longitude: float, latitude: float, width: float, height: float
) -> Float[Tensor, "v"]:
    """A smooth bump of height 1, alike on both sides of the face."""
    across = (chart[:, 0].abs() - longitude) / width
    return torch.exp(-(across.square() + ((chart[:, 1] - latitude) / height).square()))


def _surface(chart: Float[Tensor, "v 2"]) -> tuple[Float[Tensor, "v 3"], Float[Tensor, "v 3"]]:
    """Points of the mean face in mm and the directions outwards."""
    longitude, latitude = torch.deg2rad(chart).unbind(-1)
    outwards = torch.stack([latitude.cos() * longitude.sin(), latitude.sin(), latitude.cos() * longitude.cos()], dim=-1)
    nose = 20 * _bump(chart, 0.0, -5.0, 9.0, 14.0)
    relief = nose - 7 * _bump(chart, 27.0, 15.0, 11.0, 7.0) + 4 * _bump(chart, 0.0, -22.0, 16.0, 7.0)
    points = outwards * torch.tensor(_RADII, dtype=torch.float64)
    points[:, 2] += relief
    return points, outwards


def _expressions(chart: Float[Tensor, "v 2"], outwards: Float[Tensor, "v 3"]) -> Float[Tensor, "v 3 e"]:
    """Displacements in mm of the named expressions; the first, neutral, is zero."""
    side = torch.sign(chart[:, 0]) * (chart[:, 0].abs() / 10).clamp_max(1)
    up, forward = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    sideways = side[:, None] * torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    below_lips = torch.sigmoid(-(chart[:, 1] + 22) / 2)[:, None]
    jaw = below_lips * torch.sigmoid((75 - chart[:, 0].abs()) / 8)[:, None] * (-14 * up - 4 * forward)
    corners, brows = _bump(chart, 19.0, -21.0, 9.0, 7.0)[:, None], _bump(chart, 28.0, 26.0, 18.0, 6.0)[:, None]
    lids, mouth = _bump(chart, 27.0, 17.0, 10.0, 2.5)[:, None], _bump(chart, 0.0, -22.0, 18.0, 8.0)[:, None]
    smile = corners * (6 * sideways + 5 * up - 2 * forward)
    pucker = mouth * (6 * outwards - 5 * sideways)
    changes = [0 * jaw, jaw, smile, 7 * brows * up, -6 * lids * up, pucker, -5 * brows * up - 3 * corners * up]
    return torch.stack(changes, dim=-1)


def _data_tensor() -> Float[Tensor, "rows people faces"]:
    """Faces in mm of 24 people x 7 expressions, each person's expressions a little their own."""
    chart, _, _ = _chart()
    mean, outwards = _surface(chart)
    mean = mean - mean.mean(dim=0)
    draw = torch.Generator().manual_seed(66)
    traits = torch.randn(_N_PEOPLE, 8, generator=draw, dtype=torch.float64)
    size = 1 + 0.04 * traits[:, :1] + 0.03 * traits[:, 1:4]
    nose, jaw, cheeks = (
        4 * _bump(chart, 0.0, -5.0, 9.0, 14.0),
        4 * _bump(chart, 45.0, -30.0, 25.0, 15.0),
        3 * _bump(chart, 40.0, 5.0, 15.0, 12.0),
    )
    relief = traits[:, 4:7] @ torch.stack([nose, jaw, cheeks])
    people = mean * size[:, None, :] + relief[..., None] * outwards
    strength = 1 + 0.15 * traits[:, 7:] * torch.linspace(-1, 1, len(_NAMES), dtype=torch.float64)
    changes = _expressions(chart, outwards)
    faces = people[..., None] + strength[:, None, None, :] * size[:, None, :, None] * changes
    return faces.permute(1, 2, 0, 3).reshape(-1, _N_PEOPLE, len(_NAMES))
