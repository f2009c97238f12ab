"""Reconstructions of rendered sets, from landmarks as the shipped cascades were trained with: mediapipe's detections,
or for a cascade of iBUG landmarks true ones with errors drawn from their table."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from facerecon_torch.cascade.reconstruction import Reconstruction
from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.images.read import Pixels, read_pixels
from facerecon_torch.landmarks.registry import build_detector
from facerecon_torch.metrics.vertex_error import vertex_errors
from facerecon_torch.model.base import FaceModel
from facerecon_torch.synthetic.dataset import SyntheticSet
from facerecon_torch.synthetic.noise_table import load_noise_table, noise_file, sample_landmark_noise
from facerecon_torch.synthetic.people.head import load_head
from facerecon_torch.synthetic.people.sampling import draw_subject

from .detection import own_faces

__all__ = ["aligned_error", "neutral_faces", "part_of", "reconstruct_set", "reconstructed"]

_BATCH = 32


def reconstruct_set(
    rendered: SyntheticSet, reconstructor: FaceReconstructor, *, noise: float = 0.0, seed: int = 0
) -> tuple[SyntheticSet, Reconstruction]:
    """The part of a set whose faces are found, and the faces of its photographs; `noise` times the errors of the noise
    table of the cascade's convention are added to the landmarks."""
    convention = reconstructor.spec.convention
    table = load_noise_table(noise_file(convention))
    generator = torch.Generator().manual_seed(seed)
    drawn = sample_landmark_noise(rendered.angles, rendered.camera.scale, table, generator)
    pictures = [read_pixels(file) for file in rendered.images]
    if convention == "mediapipe":
        points = own_faces(build_detector("mediapipe"), pictures, rendered.landmarks)
    else:
        points = rendered.landmarks + drawn
    points = points + noise * drawn
    found = torch.isfinite(points).flatten(1).all(1)
    faces = Reconstruction.cat(list(reconstructed(reconstructor, pictures, points, found)))
    return part_of(rendered, found), faces


def reconstructed(
    reconstructor: FaceReconstructor,
    pictures: Sequence[Pixels],
    points: Float[Tensor, "n 66 2"],
    found: Bool[Tensor, "n"],
) -> Iterator[Reconstruction]:
    """The faces of the pictures whose points were found, some pictures at a time."""
    for rows in torch.nonzero(found)[:, 0].split(_BATCH):
        yield reconstructor.reconstruct([pictures[row] for row in rows.tolist()], points[rows])


def part_of(rendered: SyntheticSet, rows: Bool[Tensor, "n"]) -> SyntheticSet:
    """Some of the photographs of a set."""
    if bool(rows.all()):
        return rendered
    names = ("subjects", "vertices", "landmarks", "contour_vertices", "angles", "expression_weights", "macro")
    given = rendered.parameters
    return replace(
        rendered,
        images=tuple(file for file, kept in zip(rendered.images, rows.tolist(), strict=True) if kept),
        camera=rendered.camera[rows],
        parameters=None if given is None else given[rows],
        **{name: getattr(rendered, name)[rows] for name in names},
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
