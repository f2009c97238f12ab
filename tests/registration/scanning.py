"""A small range scanner for tests: an orthographic depth grid of a mesh, with noise, spikes and lost steep cells."""

import torch
from torch import Tensor

from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.normals import triangle_normals
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.model.default_face import load_source
from facerecon_torch.synthetic.people.sampling import draw_expression
from facerecon_torch.synthetic.spec import SyntheticSpec


def scan_grid(
    vertices: Tensor,
    triangles: Tensor,
    generator: torch.Generator,
    *,
    spacing: float = 0.765,
    noise_sd: float = 0.3,
    spikes: float = 0.001,
    steepest: float = 80.0,
) -> tuple[Tensor, Tensor]:
    """(points [r, c, 3], valid [r, c]) of a mesh (mm, sensor frame, +z to the sensor); row 0 is the top.

    Cells steeper than `steepest` degrees and those that see a back face are lost; a share `spikes` of the rest is
    5 to 30 mm off.
    """
    low, high = vertices.amin(0), vertices.amax(0)
    columns, rows = (((high - low)[:2] / spacing).long() + 3).tolist()
    left, top = low[0] - spacing, high[1] + spacing
    image = torch.stack([(vertices[:, 0] - left) / spacing, (top - vertices[:, 1]) / spacing, vertices[:, 2]], -1)
    raster = get_backend().rasterise(image[None], triangles, rows, columns)
    facing = triangle_normals(vertices, triangles)[:, 2][raster.triangle[0].clamp_min(0)]
    valid = (raster.triangle[0] >= 0) & (facing > torch.cos(torch.deg2rad(torch.tensor(steepest))))
    draw = torch.randn(rows, columns, generator=generator), torch.rand(3, rows, columns, generator=generator)
    depth = raster.depth[0] + noise_sd * draw[0]
    off = (5 + 25 * draw[1][0]) * torch.where(draw[1][1] < 0.5, -1.0, 1.0)
    depth = torch.where(draw[1][2] < spikes, depth + off, depth)
    x = left + spacing * torch.arange(columns)
    y = top - spacing * torch.arange(rows)
    points = torch.stack([x.expand(rows, -1), y[:, None].expand(-1, columns), depth], -1)
    return torch.where(valid[..., None], points, 0.0), valid


def draw_faces(n: int, *, seed: int = 11, expressive: bool = True) -> Tensor:
    """True meshes [n, V, 3] (model frame, mm) of people of the training family, who lie outside the model's span."""
    source = load_source()
    spec = SyntheticSpec(subjects=n, images_per_subject=1, seed=seed, family="train")
    sliders, weights = [], []
    for subject in range(n):
        sliders.append(source.sample(1, spec.generator(subject, "identity")).sliders[0])
        weights.append(draw_expression(source.expression_names, spec.generator(subject, "expression")))
    shown = torch.stack(weights) * float(expressive)
    return source.expression_vertices(torch.stack(sliders), shown)[:, : source.n_face].contiguous()


def pose(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> tuple[Tensor, Tensor]:
    """(rotation, translation) for angles in degrees; the translation is that of a sensor far away."""
    angles = torch.deg2rad(torch.tensor([yaw, pitch, roll]))
    return euler_to_matrix(*angles.unbind()), torch.tensor([12.0, -31.0, -640.0])
