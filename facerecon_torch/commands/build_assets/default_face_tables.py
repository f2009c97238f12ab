"""Builder of the default face's index tables: contour lines and the two vertex sets of the metrics.

They are derived once, on the mean face; lengths in mm, model frame.
"""

import heapq

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from facerecon_torch.geometry.mesh_queries import visible_vertices
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.landmarks.scheme import N_CONTOUR, N_INNER
from facerecon_torch.model.default_face.asset import MASKS, PARTS, SourceAsset

__all__ = ["centre_set", "contour_lines", "whole_set"]

CHIN = range(6, 11)
"""Contour landmarks with vertical lines, from under the chin upwards; all others have horizontal lines."""
VIEWS_DEGREES = ((0, 0), (40, 0), (-40, 0), (0, 25), (0, -25))
BEHIND_MM = 14.0
FRONT_SHARE = (0.78, 0.5, 0.45, 0.45, 0.45, 0.45)
"""|x| of a horizontal line's front end as a share of its landmark's: line 0 ends before the eye, others on the front
of the cheek, where the silhouette is at a yaw of 60 degrees."""
CHIN_BEHIND_MM, CHIN_ABOVE_MM = 22.0, 16.0
MIDLINE_MM = 0.5
"""Largest |x| of a vertex of the midline."""
OFF_PLANE_MM = 1.5
"""Distance from the line's plane at which an edge costs twice its length."""


def whole_set(
    vertices: Float[np.ndarray, "v 3"], asset: SourceAsset, landmarks: Int[np.ndarray, "66"]
) -> Int[np.ndarray, "whole"]:
    """The vertices of the front of the face: MakeHuman's face and lip regions on visible skin, up to the hairline.

    Visible means from the front or from one of four rotated views, which excludes nostrils and the inside of the mouth.
    The hairline lies as far above the brows as the nose's base lies below them (the rule of thirds).
    """
    masks = dict(zip(MASKS, asset.masks[:, : asset.n_face]))
    region = (masks["face"] > 0.5) | (masks["lips"] > 0.5) | (masks["eyelids"] > 0.5)
    face_parts = asset.triangle_parts[: asset.n_face_triangles]
    outer = np.isin(face_parts, [PARTS.index("skin"), PARTS.index("lips")])
    on_skin = np.zeros(asset.n_face, dtype=bool)
    on_skin[asset.triangles[: asset.n_face_triangles][outer]] = True
    brow, nose = vertices[landmarks[:10], 1].mean(), vertices[landmarks[14:19], 1].mean()
    below_hair = vertices[: asset.n_face, 1] <= 2.0 * brow - nose
    return np.flatnonzero(region & on_skin & below_hair & _visible(vertices, asset))


def _visible(vertices: Float[np.ndarray, "v 3"], asset: SourceAsset) -> Bool[np.ndarray, "face"]:
    """Whether each face vertex is visible in one of the views."""
    kept = np.isin(asset.triangle_parts, [PARTS.index(p) for p in ("hair", "lashes", "cloth")], invert=True)
    triangles = torch.from_numpy(asset.triangles[kept])
    yaw, pitch = (torch.deg2rad(torch.tensor(a, dtype=torch.float32)) for a in zip(*VIEWS_DEGREES))
    turned = torch.from_numpy(vertices).float() @ euler_to_matrix(yaw, pitch, torch.zeros_like(yaw)).mT
    return np.asarray(visible_vertices(turned, triangles).any(0)[: asset.n_face])


def centre_set(
    vertices: Float[np.ndarray, "v 3"], whole: Int[np.ndarray, "whole"], landmarks: Int[np.ndarray, "66"]
) -> Int[np.ndarray, "centre"]:
    """The vertices of `whole` inside the frontal convex hull of brows, eyes, nose, mouth and chin."""
    corners = vertices[np.append(landmarks[:N_INNER], landmarks[N_INNER + 8]), :2]
    inside = np.ones(len(whole), dtype=bool)
    for a, b in _hull_edges(corners):
        along, to = b - a, vertices[whole, :2] - a
        inside &= along[0] * to[:, 1] - along[1] * to[:, 0] >= -1e-9
    return whole[inside]


def _hull_edges(
    points: Float[np.ndarray, "n 2"],
) -> list[tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]]]:
    """The edges of the convex hull, counter-clockwise: the pairs with no point to their right."""
    edges = []
    for a in points:
        for b in points:
            along, to = b - a, points - a
            if along.any() and (along[0] * to[:, 1] - along[1] * to[:, 0] >= -1e-9).all():
                edges.append((a, b))
    return edges


def contour_lines(
    vertices: Float[np.ndarray, "v 3"], asset: SourceAsset, landmarks: Int[np.ndarray, "66"]
) -> Int[np.ndarray, "17 length"]:
    """One line of mesh vertices per contour landmark, from back to front, padded with -1.

    Each line is the shortest path along skin edges from a back end over the landmark to a front end; edges off the
    line's plane cost more. The plane contains the landmark and the viewing axis. For landmarks 0..5 and 11..16 it is
    horizontal, and the line runs from just before the ear or behind the jaw to the front of the cheek. For the chin
    it contains the contour's normal, and the line runs from under the chin up its front. Paths avoid ears, lips, lids,
    all skin behind the front of the ears.
    """
    contour = landmarks[N_INNER:]
    points = vertices[: asset.n_face]
    open_skin = _open_skin(points, asset)
    neighbours = _neighbours(asset, open_skin)
    lines = []
    for k in range(N_CONTOUR):
        if k <= N_CONTOUR // 2:
            ends, off_plane = _line_ends(points, contour, k, open_skin)
            paths = [_shortest(neighbours, points, off_plane, contour[k], end) for end in ends]
            lines.append([*reversed(paths[0]), *paths[1][1:]])
        else:  # the mesh is symmetric: the right side mirrors the left one
            lines.append([_mirror(points, v) for v in lines[N_CONTOUR - 1 - k]])
    table = np.full((N_CONTOUR, max(map(len, lines))), -1, dtype=np.int64)
    for row, line in zip(table, lines):
        row[: len(line)] = line
    return table


def _open_skin(points: Float[np.ndarray, "face 3"], asset: SourceAsset) -> Bool[np.ndarray, "face"]:
    """Whether paths may pass each face vertex."""
    masks = dict(zip(MASKS, asset.masks[:, : asset.n_face]))
    closed = sum(masks[name] > 0.3 for name in ("ears", "lips", "eyelids", "inside-mouth"))
    ears = points[masks["ears"] > 0.5]
    behind = (points[:, 2] < ears[:, 2].max() + 1.0) & (points[:, 1] > ears[:, 1].min() - 8.0)
    return np.asarray((np.asarray(closed) == 0) & ~behind)


def _line_ends(
    points: Float[np.ndarray, "face 3"],
    contour: Int[np.ndarray, "17"],
    k: int,
    open_skin: Bool[np.ndarray, "face"],
) -> tuple[tuple[int, int], Float[np.ndarray, "face"]]:
    """The back and front end of line k, and every vertex's distance from the line's plane."""
    x, y, z = (points - points[contour[k]]).T
    if k in CHIN:
        tangent = points[contour[k + 1], :2] - points[contour[k - 1], :2]
        normal = np.array([tangent[1], -tangent[0]]) / np.linalg.norm(tangent)  # outwards
        off_plane = np.abs(x * normal[1] - y * normal[0])
        goals = (z + CHIN_BEHIND_MM, x * normal[0] + y * normal[1] + CHIN_ABOVE_MM)
        sides = (z < 0, z > -5.0)
    else:
        off_plane = np.abs(y)
        share = FRONT_SHARE[k]
        goals = (z + BEHIND_MM, np.abs(points[:, 0]) - share * abs(points[contour[k], 0]))
        sides = (z < 0, z > 0)
    ends = []
    for goal, side in zip(goals, sides):
        cost = np.abs(goal) + 3.0 * off_plane
        cost[~(open_skin & side) | (points[:, 0] > MIDLINE_MM)] = np.inf
        ends.append(int(cost.argmin()))
    return (ends[0], ends[1]), off_plane


def _neighbours(asset: SourceAsset, open_skin: Bool[np.ndarray, "face"]) -> list[list[int]]:
    triangles = asset.triangles[: asset.n_face_triangles]
    result: list[set[int]] = [set() for _ in range(asset.n_face)]
    for a, b in np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]):
        if open_skin[a] and open_skin[b]:
            result[a].add(int(b))
            result[b].add(int(a))
    return [sorted(row) for row in result]


def _shortest(
    neighbours: list[list[int]],
    points: Float[np.ndarray, "face 3"],
    off_plane: Float[np.ndarray, "face"],
    start: int,
    end: int,
) -> list[int]:
    """The shortest path (Dijkstra); an edge costs length x (1 + (distance from the plane / 1.5 mm)^2)."""
    best, came, queue = {int(start): 0.0}, {}, [(0.0, int(start))]
    while queue:
        cost, vertex = heapq.heappop(queue)
        if vertex == end:
            break
        for other in neighbours[vertex]:
            length = float(np.linalg.norm(points[other] - points[vertex]))
            total = cost + length * (1.0 + (off_plane[other] / OFF_PLANE_MM) ** 2)
            if total < best.get(other, np.inf):
                best[other], came[other] = total, vertex
                heapq.heappush(queue, (total, other))
    if end not in best:
        raise ValueError(f"vertices {start} and {end} must be joined by open skin; they are not")
    path = [end]
    while path[-1] != start:
        path.append(came[path[-1]])
    return path[::-1]


def _mirror(points: Float[np.ndarray, "face 3"], vertex: int) -> int:
    """The vertex nearest to the mirror image of `vertex`."""
    return int(np.square(points - points[vertex] * [-1.0, 1.0, 1.0]).sum(1).argmin())
