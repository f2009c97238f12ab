"""Face models by others for tests: a linear one on its own mesh, and small bilinear ones on the default face's mesh."""

from functools import lru_cache

import torch

from facerecon_torch.model.bilinear import BilinearModel
from facerecon_torch.model.default_face import load_default_face, load_source
from facerecon_torch.model.linear import LinearModel
from facerecon_torch.registration.topology.complete import derive_topology
from tests.registration.foreign_face import make_foreign_face

KNOWN = (8, 17, 19, 21, 22, 24, 26, 27, 30, 31, 33, 35, 36, 37, 39, 41, 42, 44, 45, 46, 48, 51, 54, 57)


@lru_cache(maxsize=1)
def linear_model() -> LinearModel:
    """Three identity modes that stretch a foreign face, and two expression components without names."""
    face = make_foreign_face()
    topology = derive_topology(face.vertices, face.triangles, None, face.known(KNOWN)).topology
    mean = (face.vertices - face.vertices.mean(0)).float()
    stretch = torch.stack([torch.diag(axis) for axis in torch.eye(3)], -1)
    identity = torch.einsum("va,abi->vbi", mean, stretch) * 0.05
    lip = face.truth[face.topology.landmark_vertices[45:49]].mean(0).float() - face.vertices.mean(0).float()
    below = torch.sigmoid((lip[1] - mean[:, 1]) / 1.0)[:, None] * torch.tensor([0.0, -6.0, -1.0])
    brows = torch.sigmoid((mean[:, 1] - 30.0) / 5.0)[:, None] * torch.tensor([0.0, 3.0, 0.0])
    return LinearModel(mean, identity, torch.stack([below, brows], -1), topology)


@lru_cache(maxsize=2)
def bilinear_model(n_people: int = 12, *, names: tuple[str, ...] | None = None) -> BilinearModel:
    """The default face with fewer identity factors; `names` instead of its expressions' names."""
    whole = load_default_face()
    return BilinearModel(
        whole.core[:, :, :n_people].contiguous(),
        whole.identity_rows[:, :n_people].contiguous(),
        whole.expression_rows,
        whole.topology,
        expression_names=names or ("neutral", *load_source().expression_names),
    )
