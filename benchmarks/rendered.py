"""Reconstructions of rendered sets, with landmark errors from the noise table of the cascade's convention."""

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.cascade.reconstruction import Reconstruction
from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.images.read import read_image
from facerecon_torch.metrics.vertex_error import vertex_errors
from facerecon_torch.model.base import FaceModel
from facerecon_torch.synthetic.dataset import SyntheticSet
from facerecon_torch.synthetic.noise_table import load_noise_table, noise_file, sample_landmark_noise
from facerecon_torch.synthetic.people.head import load_head
from facerecon_torch.synthetic.people.sampling import draw_subject

__all__ = ["aligned_error", "neutral_faces", "reconstruct_set"]

_BATCH = 32


def reconstruct_set(
    rendered: SyntheticSet, reconstructor: FaceReconstructor, *, noise: float = 1.0, seed: int = 0
) -> Reconstruction:
    """The faces of a set's photographs; `noise` multiplies the drawn landmark errors."""
    table = load_noise_table(noise_file(reconstructor.spec.convention))
    generator = torch.Generator().manual_seed(seed)
    drawn = sample_landmark_noise(rendered.angles, rendered.camera.scale, table, generator)
    points = rendered.landmarks + noise * drawn
    parts = [slice(k, k + _BATCH) for k in range(0, len(rendered), _BATCH)]
    return Reconstruction.cat(
        [reconstructor.reconstruct([read_image(file) for file in rendered.images[p]], points[p]) for p in parts]
    )


def neutral_faces(rendered: SyntheticSet) -> Float[Tensor, "n v 3"]:
    """The face at rest of each photograph's person, mm; of people of the default face's source."""
    head, spec = load_head(), rendered.spec
    first = spec.subject_id(0)
    faces = {}
    for number in rendered.subjects.unique().tolist():
        generators = (spec.generator(number - first, purpose) for purpose in ("identity", "appearance"))
        drawn = draw_subject(head.source, *generators, shifted=spec.family == "shifted")
        faces[number] = head.source.identity_vertices(drawn.sliders[None])[0, : head.source.n_face]
    return torch.stack([faces[number] for number in rendered.subjects.tolist()])


def aligned_error(
    model: FaceModel,
    identity: Float[Tensor, "n identities"],
    expression: Float[Tensor, "n expressions"],
    truth: Float[Tensor, "n v 3"],
) -> Float[Tensor, "n"]:
    """MAE in mm of the whole-face vertices after a similarity (Eq. 15).

    Raises:
        ValueError: true meshes of another topology.
    """
    wanted, given = model.n_vertices, truth.shape[-2]
    if given != wanted:
        raise ValueError(f"the set must show people of the cascade's model, {wanted} vertices; its meshes have {given}")
    assert model.topology is not None
    rows = model.topology.whole_vertices
    shapes = model.restrict(rows).vertices(identity, expression)
    return vertex_errors(shapes.double(), truth[:, rows].double(), "similarity").mae
