"""A real textured scan as a photograph from the front, and its 68 points in iBUG order."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from facerecon_torch.geometry.mesh_queries import get_backend

# rows of the file's points that are iBUG 0..67
_ORDER = [*range(17), *range(29, 34), *range(43, 48), *range(34, 43), *range(17, 23), *range(23, 29), *range(48, 68)]
_GREY = 0.55


@dataclass(frozen=True)
class Scan:
    vertices: Tensor  # [V, 3] mm
    triangles: Tensor
    landmarks: Tensor  # [68, 3] mm
    uv: Tensor  # [T, 3, 2]: one per corner, because the texture has seams
    texture: Tensor  # [3, H, W]


def read_scan(folder: Path) -> Scan:
    """The scan of a folder with one `NAME.obj`, `NAME.jpg` and `NAME.ljson`.

    Raises:
        ValueError: no scan in the folder, or several.
    """
    files = sorted(folder.glob("*.obj"))
    if len(files) != 1:
        raise ValueError(f"{folder} must hold one OBJ file; it holds {len(files)}")
    rows: dict[str, list[list[str]]] = {"v": [], "vt": [], "f": []}
    for line in files[0].read_text().splitlines():
        kind, *words = line.split() or [""]
        if kind in rows:
            rows[kind].append(words)
    corners = np.array([[corner.split("/")[:2] for corner in face] for face in rows["f"]], dtype=np.int64) - 1
    vertices, uv = (np.array([r[:k] for r in rows[name]], dtype=np.float32) for name, k in (("v", 3), ("vt", 2)))
    points = json.loads(files[0].with_suffix(".ljson").read_text())["groups"]["LJSON"]["landmarks"]["points"]
    with Image.open(files[0].with_suffix(".jpg")) as image:
        texture = torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1).float() / 255
    return Scan(
        torch.from_numpy(vertices),
        torch.from_numpy(corners[..., 0].copy()),
        torch.tensor(points, dtype=torch.float32)[_ORDER],
        torch.from_numpy(uv[corners[..., 1]]),
        texture,
    )


def turned(scan: Scan, yaw: float, pitch: float) -> Scan:
    """The scan turned about its middle by `yaw` to its left and `pitch` downwards, in degrees."""
    (cy, sy), (cp, sp) = ((math.cos(angle), math.sin(angle)) for angle in (math.radians(yaw), math.radians(pitch)))
    turn = torch.tensor([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]) @ torch.tensor([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    middle = scan.landmarks.mean(0)
    moved = ((points - middle) @ turn.T + middle for points in (scan.vertices, scan.landmarks))
    return replace(scan, **dict(zip(("vertices", "landmarks"), moved, strict=True)))


def photograph(scan: Scan, *, size: int = 640, px_per_mm: float = 2.0) -> Tensor:
    """The scan from the front, unlit (its texture is a photograph), on grey, 2 x 2 samples a pixel."""
    fine, scale = 2 * size, 2 * px_per_mm
    centre = scan.landmarks.mean(0)
    flip = torch.tensor([1.0, -1.0, 1.0])
    points = (scan.vertices - centre) * flip * scale
    points[:, :2] += (fine - 1) / 2
    raster = get_backend().rasterise(points[None], scan.triangles, fine, fine)
    seen = raster.triangle[0] >= 0
    corners = scan.uv[raster.triangle[0].clamp_min(0)]
    uv = (raster.barycentric[0][..., None] * corners).sum(-2)
    grid = torch.stack([2 * uv[..., 0] - 1, 1 - 2 * uv[..., 1]], -1)
    colour = torch.nn.functional.grid_sample(scan.texture[None], grid[None], align_corners=False)[0]
    picture = torch.where(seen, colour, _GREY)
    return torch.nn.functional.avg_pool2d(picture[None], 2)[0].clamp(0, 1)
