"""Faces on a small mesh, and files of them in the layouts that importers read."""

import struct

import numpy as np
import torch

from facerecon_torch.formats.facewarehouse import QuadMesh, save_blendshapes, save_quads
from facerecon_torch.geometry.rotation import axis_angle_to_matrix

N_COLUMNS, N_ROWS = 6, 7
N_VERTICES = N_COLUMNS * N_ROWS


def grid():
    """Vertices [42, 3] in mm of a bulging patch of 150 x 200 mm, and its quads, counter-clockwise from +z."""
    x, y = np.meshgrid(np.linspace(-75, 75, N_COLUMNS), np.linspace(-100, 100, N_ROWS))
    z = 60 - (x / 12) ** 2 - (y / 20) ** 2
    corner = np.arange(N_VERTICES).reshape(N_ROWS, N_COLUMNS)
    quads = np.stack([corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1]], axis=-1).reshape(-1, 4)
    return torch.from_numpy(np.stack([x, y, z], axis=-1).reshape(-1, 3)), torch.from_numpy(quads)


def triangles():
    _, quads = grid()
    return quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)


def faces(n_people=5, n_expressions=4, seed=0, rank=None):
    """[people, expressions, V, 3] in mm, float64, centred: sizes, shapes and person-dependent expressions. With
    `rank`, people are combinations of that many."""
    draw = torch.Generator().manual_seed(seed)
    mean, _ = grid()
    kinds = n_people if rank is None else rank
    people = mean + 4 * torch.randn(kinds, N_VERTICES, 3, generator=draw, dtype=torch.float64)
    change = 6 * torch.randn(n_expressions, N_VERTICES, 3, generator=draw, dtype=torch.float64)
    change[0] = 0
    strength = 1 + 0.2 * torch.randn(kinds, 1, 1, 1, generator=draw, dtype=torch.float64)
    basis = people[:, None] + strength * change
    if rank is not None:
        mix = torch.randn(n_people, kinds, generator=draw, dtype=torch.float64).abs() + 0.2
        basis = torch.einsum("pk,kevd->pevd", mix / mix.sum(dim=1, keepdim=True), basis)
    return basis - basis.mean(dim=(0, 1, 2))


def moved(shapes, seed=1):
    """Every person turned by about 10 degrees and shifted by centimetres, all expressions alike."""
    draw = torch.Generator().manual_seed(seed)
    n_people = len(shapes)
    turns = axis_angle_to_matrix(0.1 * torch.randn(n_people, 3, generator=draw, dtype=torch.float64))
    shifts = 20 * torch.randn(n_people, 1, 1, 3, generator=draw, dtype=torch.float64)
    return shapes @ turns[:, None].mT + shifts


def write_mesh(path, unit=100.0):
    """An OBJ file as FaceWarehouse has it: dm, quads `f v/vt/0`."""
    vertices, quads = grid()
    uv = vertices[:, :2] / 400 + 0.5
    return save_quads(QuadMesh(vertices=vertices * (100 / unit), uv=uv, faces=quads, face_uv=quads), path)


def write_testers(root, shapes, *, with_mesh=True):
    """Tester_1 .. n with shape.bs (and shape_0.obj)."""
    for k, person in enumerate(shapes, start=1):
        folder = root / f"Tester_{k}" / "Blendshape"
        folder.mkdir(parents=True)
        save_blendshapes(person, folder / "shape.bs")
        if with_mesh:
            write_mesh(folder / "shape_0.obj")
    return root


def write_tensor(path, array):
    """`.tensor` and u_k: int32 sizes, then column-major float64 matrices of the last two axes."""
    head = struct.pack(f"<{array.ndim}i", *array.shape)
    path.write_bytes(head + np.ascontiguousarray(np.swapaxes(array, -1, -2), dtype="<f8").tobytes())
    return path


def bilinear_shapes(model):
    """Every person in every expression [people, expressions, V, 3] of an ImportedModel."""
    arrays = {name: value.double() for name, value in model.factors.items()}
    return torch.einsum("vdie,pi,xe->pxvd", arrays["core"], arrays["identity_rows"], arrays["expression_rows"])
