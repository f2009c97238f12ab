"""The four names of pytorch3d that the backend calls, with their documented signatures and conventions, slowly.

It checks how the backend calls pytorch3d, argument by argument, and refuses what version 0.7.9 was seen to refuse.
"""

import sys
import types
from typing import NamedTuple

import numpy as np
import torch

BACKEND = "facerecon_torch.geometry.pytorch3d_backend"


class Meshes:
    """pytorch3d.structures.Meshes: lists of vertices [V, 3] (float32) and faces [F, 3] (int64), one each a mesh."""

    def __init__(self, verts, faces, textures=None, *, verts_normals=None):
        assert textures is None
        assert verts_normals is None
        assert len(verts) == len(faces)
        for points, triangles in zip(verts, faces):
            assert points.dtype == torch.float32
            assert torch.isfinite(points).all()
            assert triangles.dtype == torch.int64
        self.verts, self.faces = verts, faces


def rasterize_meshes(
    meshes,
    image_size=256,
    blur_radius=0.0,
    faces_per_pixel=8,
    bin_size=None,
    max_faces_per_bin=None,
    perspective_correct=False,
    clip_barycentric_coords=False,
    cull_backfaces=False,
    z_clip_value=None,
    cull_to_frustum=False,
):
    """(pix_to_face, zbuf, bary_coords, dists), [N, H, W, K, ...]; pix_to_face counts the faces of all meshes in a row.
    A centre on an edge is inside only where blur_radius reaches it."""
    height, width = image_size
    assert not any([perspective_correct, clip_barycentric_coords, cull_backfaces, cull_to_frustum])
    assert faces_per_pixel == 1
    shorter = min(height, width)
    y = (height / shorter) * (1 - (2 * np.arange(height) + 1) / height)  # +y up, the first row is the top
    x = (width / shorter) * (1 - (2 * np.arange(width) + 1) / width)  # +x left
    centres = np.stack(np.meshgrid(x, y), axis=-1)
    found = np.full((len(meshes.verts), height, width, 1), -1)
    zbuf = np.full(found.shape, -1.0)
    offset = 0
    for n, (verts, faces) in enumerate(zip(meshes.verts, meshes.faces)):
        for f, corners in enumerate(verts.double().numpy()[faces.numpy()]):
            _draw(corners, offset + f, centres, blur_radius, found[n, ..., 0], zbuf[n, ..., 0])
        offset += len(faces)
    nothing = torch.zeros(*found.shape, 3)
    return torch.from_numpy(found), torch.from_numpy(zbuf).float(), nothing, nothing[..., 0]


def _draw(corners, number, centres, blur, found, zbuf):
    a, b, c = corners[:, :2]

    def cross(u, v):
        return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]

    area = cross(b - a, c - a)
    if abs(area) < 1e-8 or (corners[:, 2] < 0).any():
        return
    weights = np.stack([cross(b - centres, c - centres), cross(c - centres, a - centres)], -1) / area
    weights = np.concatenate([weights, 1 - weights.sum(-1, keepdims=True)], -1)
    lengths = np.array([np.linalg.norm(c - b), np.linalg.norm(a - c), np.linalg.norm(b - a)])
    outside = -weights * abs(area) / lengths  # signed distance from each edge's line
    hit = (outside < np.sqrt(blur)).all(-1)
    depth = weights @ corners[:, 2]
    nearer = hit & ((found < 0) | (depth < zbuf - 1e-7))
    found[nearer], zbuf[nearer] = number, depth[nearer]


class _Knn(NamedTuple):
    dists: torch.Tensor
    idx: torch.Tensor
    knn: torch.Tensor | None


def knn_points(
    p1, p2, lengths1=None, lengths2=None, norm=2, K=1, version=-1, return_nn=False, return_sorted=True
):  # fmt: skip
    """Squared distances and indices [N, P1, K] of the K nearest p2 [N, P2, D] of every p1 [N, P1, D], sorted."""
    assert p1.ndim == p2.ndim == 3
    assert p1.dtype == p2.dtype == torch.float32
    assert p2.shape[1] >= K
    squared, index = torch.cdist(p1.double(), p2.double()).square().topk(K, dim=-1, largest=False)
    return _Knn(squared.to(p1), index, None)


def cot_laplacian(verts, faces, eps=1e-12):
    """(L, inv_areas): L sparse [V, V] with cot a + cot b off the diagonal and nothing on it, not clamped; inv_areas
    [V, 1], one over the area of all triangles at a vertex. Both are float32 whatever the vertices are, which refuses
    float64; areas are Heron's, at least sqrt(eps)."""
    n = len(verts)
    sides = torch.stack(
        [torch.linalg.vector_norm(verts[faces[:, k - 2]] - verts[faces[:, k - 1]], dim=1) for k in range(3)], dim=1
    )
    s = sides.sum(1) / 2
    area = (s * (s - sides[:, 0]) * (s - sides[:, 1]) * (s - sides[:, 2])).clamp_min(eps).sqrt()
    rows, columns, values = [], [], []
    for k in range(3):
        rows.append(faces[:, k - 2])
        columns.append(faces[:, k - 1])
        squares = sides.square()
        values.append((squares[:, k - 2] + squares[:, k - 1] - squares[:, k]) / (4 * area))
    half = torch.sparse_coo_tensor(torch.stack([torch.cat(rows), torch.cat(columns)]), torch.cat(values), (n, n))
    areas = torch.zeros(n, dtype=torch.float32)
    areas.scatter_add_(0, faces.flatten(), area.repeat_interleave(3))  # RuntimeError for float64, as the real one
    return half + half.t(), torch.where(areas > 0, 1 / areas, 0.0)[:, None]


def install(monkeypatch):
    """Put the names where `import pytorch3d...` finds them, for one test."""
    parts = {
        "pytorch3d": {},
        "pytorch3d.structures": {"Meshes": Meshes},
        "pytorch3d.renderer": {},
        "pytorch3d.renderer.mesh": {"rasterize_meshes": rasterize_meshes},
        "pytorch3d.ops": {"knn_points": knn_points, "cot_laplacian": cot_laplacian},
    }
    for name, content in parts.items():
        module = types.ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    # A place for the backend's own module, so that the one made with these names is gone after the test.
    monkeypatch.setitem(sys.modules, BACKEND, types.ModuleType(BACKEND))
    del sys.modules[BACKEND]
