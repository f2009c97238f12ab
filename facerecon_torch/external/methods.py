"""Faces that a method gave for a list of images, in one form for all methods."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.cascade.start import mean_face
from facerecon_torch.external.folder import OWN_TOPOLOGY, OutputFace, OutputHints, SystemOutputs
from facerecon_torch.external.truth import SEVEN_ROWS, Truth
from facerecon_torch.fitting.contour import ContourSpec, build_contour_lines, march_contour
from facerecon_torch.geometry.projection import project
from facerecon_torch.images.read import read_pixels
from facerecon_torch.landmarks.scheme import N_INNER, from_paper66
from facerecon_torch.model.base import FaceModel
from facerecon_torch.structures import Camera, FaceParameters

__all__ = ["FaceGroup", "MethodFaces", "external_faces", "mean_faces", "model_group", "own_faces", "seen_landmarks"]

_TOGETHER = 16  # images in memory at once
_WHOLE = "a comparison needs a whole model"


@dataclass(frozen=True, kw_only=True)
class FaceGroup:
    """Faces of one topology.

    Attributes:
        places: of their images in the list.
        vertices: in the method's own frame and unit.
        triangles: of all of them.
        seven: their points at `scan.SEVEN_POINTS`.
        corresponds: whether vertex k is vertex k of the true meshes, and the frame the model's.
    """

    places: tuple[int, ...]
    vertices: Float[Tensor, "m V 3"]
    triangles: Int[Tensor, "T 3"]
    seven: Float[Tensor, "m 7 3"]
    corresponds: bool

    def only(self, rows: Sequence[int]) -> "FaceGroup":
        """Some of the faces, in float64."""
        chosen = list(rows)
        return replace(
            self,
            places=tuple(self.places[k] for k in chosen),
            vertices=self.vertices[chosen].double(),
            seven=self.seven[chosen].double(),
        )


@dataclass(frozen=True, kw_only=True)
class MethodFaces:
    """The faces of one method, and its 68 landmarks in px of each image (NaN where it gave none)."""

    name: str
    groups: tuple[FaceGroup, ...]
    image_points: Float[Tensor, "images 68 2"]

    @property
    def places(self) -> set[int]:
        """The images with a face or with landmarks."""
        seen = torch.isfinite(self.image_points).all(-1).all(-1)
        return {k for group in self.groups for k in group.places} | set(torch.nonzero(seen).flatten().tolist())


def model_group(model: FaceModel, vertices: Float[Tensor, "m V 3"], places: Sequence[int]) -> FaceGroup:
    """Meshes of the truth's own model in its frame, mm."""
    topology = model.whole_topology(_WHOLE)
    seven = vertices[:, topology.landmark_vertices[list(SEVEN_ROWS)]]
    return FaceGroup(
        places=tuple(places), vertices=vertices, triangles=topology.triangles, seven=seven, corresponds=True
    )


def mean_faces(reconstructor: FaceReconstructor, truth: Truth) -> MethodFaces:
    """The model's mean face for every image, whose camera alone is solved from the landmarks."""
    return _posed("mean face", reconstructor, truth, mean_face(reconstructor.face_model, len(truth)))


def own_faces(reconstructor: FaceReconstructor, truth: Truth) -> list[MethodFaces]:
    """Ours: the landmark fit and the cascade, on the truth's images and landmarks.

    Raises:
        ImageFileError: an image cannot be read.
    """
    landmarks = truth.landmarks.to(reconstructor.dtype)
    fitted, found = [], []
    for start in range(0, len(truth), _TOGETHER):
        files = [path for path in truth.images[start : start + _TOGETHER] if path is not None]
        points = landmarks[start : start + _TOGETHER]
        if len(files) != len(points):
            raise ValueError("ours needs a photograph of every image")
        fitted.append(reconstructor.solvers.fitter.fit(points.to(reconstructor.device)).parameters.cpu())
        found.append(reconstructor.reconstruct([read_pixels(path) for path in files], points).parameters.cpu())
    answers = (("landmark fit", FaceParameters.cat(fitted)), ("ours", FaceParameters.cat(found)))
    return [_posed(name, reconstructor, truth, parameters) for name, parameters in answers]


def _posed(name: str, reconstructor: FaceReconstructor, truth: Truth, parameters: FaceParameters) -> MethodFaces:
    """Faces of parameters; their landmarks are those of the camera that fits them to the given landmarks (Eq. 6)."""
    model, fitter = reconstructor.face_model, reconstructor.solvers.fitter
    landmarks = truth.landmarks.to(model.device, model.dtype)
    start = fitter.fit(landmarks).camera
    parameters = parameters.to(model.device)
    camera, points, _ = fitter.refine(parameters, landmarks, start)
    vertices = torch.cat([model.vertices(part.identity, part.expression).cpu() for part in _parts(parameters)])
    return MethodFaces(
        name=name,
        groups=(model_group(model, vertices, range(len(truth))),),
        image_points=from_paper66(project(points, camera)).cpu(),
    )


def _parts(parameters: FaceParameters) -> list[FaceParameters]:
    return [parameters[k : k + _TOGETHER] for k in range(0, len(parameters), _TOGETHER)]


def seen_landmarks(model: FaceModel, vertices: Float[Tensor, "m V 3"], camera: Camera) -> Float[Tensor, "m 68 2"]:
    """The 68 landmarks in px of meshes of the model under their cameras, with the contour at the silhouette."""
    topology = model.whole_topology(_WHOLE)
    lines = build_contour_lines(model.vertices(model.identity_mean, model.expression_mean), topology)
    slots = march_contour(vertices[:, lines.vertices], camera.rotation, lines, ContourSpec())
    contour = lines.vertices.gather(1, slots.mT).mT
    inner = topology.landmark_vertices[:N_INNER].expand(len(vertices), -1)
    rows = torch.cat([inner, contour], 1)
    points = vertices.gather(1, rows[..., None].expand(-1, -1, 3))
    return from_paper66(project(points, camera))


def output_hints(
    model: FaceModel, *, triangles: Path | None = None, landmark_vertices: Path | None = None
) -> OutputHints:
    """The facts that files of other systems do not hold; meshes with the model's number of vertices are the model's.

    Args:
        model: of the truth.
        triangles, landmark_vertices: as of `OutputHints`.
    """
    own = None
    if model.topology is not None:
        own = model.n_vertices, tuple(model.topology.landmark_vertices[list(SEVEN_ROWS)].tolist())
    return OutputHints(triangles=triangles, landmark_vertices=landmark_vertices, own=own)


def external_faces(system: SystemOutputs, truth: Truth) -> MethodFaces:
    """The faces of another system's folder; faces of one topology become one group."""
    points = torch.full((len(truth), 68, 2), torch.nan)
    for place, face in system.faces.items():
        if face.image_points is not None:
            points[place] = face.image_points.float()
    groups: list[list[int]] = []
    for place in sorted(place for place, face in system.faces.items() if face.vertices is not None):
        alike = next((g for g in groups if _one_topology(system.faces[g[0]], system.faces[place])), None)
        groups.append([place]) if alike is None else alike.append(place)
    return MethodFaces(name=system.name, groups=tuple(_group(system, places) for places in groups), image_points=points)


def _one_topology(a: OutputFace, b: OutputFace) -> bool:
    if a.vertices is None or b.vertices is None or a.triangles is None or b.triangles is None:
        return False
    return a.vertices.shape == b.vertices.shape and torch.equal(a.triangles, b.triangles)


def _group(system: SystemOutputs, places: list[int]) -> FaceGroup:
    faces = [system.faces[k] for k in places]
    parts = [(f.vertices, f.triangles, f.seven) for f in faces]
    vertices = torch.stack([v for v, _, _ in parts if v is not None])
    seven = torch.stack([s for _, _, s in parts if s is not None])
    triangles = next(t for _, t, _ in parts if t is not None)
    return FaceGroup(
        places=tuple(places),
        vertices=vertices,
        triangles=triangles,
        seven=seven,
        corresponds=faces[0].topology == OWN_TOPOLOGY,
    )
