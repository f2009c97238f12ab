"""A fitted face whose identity and named expressions can be changed, for the viewer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.checks import require_shape
from facerecon_torch.commands.own_files import read_document
from facerecon_torch.errors import DataFileError
from facerecon_torch.export.glb import glb_parts
from facerecon_torch.export.parameters import FittedFaces, face_in_document, require_faces
from facerecon_torch.export.texture import TextureAtlas, encode_texture
from facerecon_torch.formats.face_document import FACE_FORMAT
from facerecon_torch.images.read import Pixels, read_pixels
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.named_shapes import NamedShapes, named_shapes
from facerecon_torch.model.topology import N_LANDMARKS
from facerecon_torch.structures import FaceParameters, Mesh

__all__ = ["EditableFace", "read_face"]

_TEXTURE = 512  # px


@dataclass(frozen=True, kw_only=True)
class EditableFace:
    """A face of a face model with its photograph.

    Attributes:
        model: the face model.
        values: of the fitted face, without batch axis.
        size: ratio of the face to the model's shape.
        rest: what the fitted face has beside its named expressions, mm.
        surface: tables of the mesh.
        texture: a PNG file from the photograph; None without one.
        photograph: its pixels; None without it.
    """

    model: FaceModel
    values: FittedFaces
    size: float
    rest: Float[Tensor, "vertices 3"]
    surface: Mesh
    texture: bytes | None
    photograph: Pixels | None

    @property
    def names(self) -> tuple[str, ...]:
        """The named expressions but `neutral`."""
        return _shapes(self.model, self.values.parameters).names

    @property
    def weights(self) -> dict[str, float]:
        """The weights of the named expressions of the fitted face."""
        listed = dict(zip(self.model.expression_names, self.values.expression_weights.tolist(), strict=True))
        return {name: listed[name] for name in self.names}

    def vertices(self, identity: Tensor, weights: Float[Tensor, "names"], rest: float) -> Float[Tensor, "vertices 3"]:
        """The vertices in mm, model frame.

        Args:
            identity: standard deviations that are added to the first identity weights.
            weights: of the named expressions.
            rest: share of what the fitted face has beside them.
        """
        parameters, count = self.values.parameters, len(identity)
        alpha = parameters.identity.clone()
        alpha[:count] += identity.to(alpha) * self.model.identity_variance[:count].sqrt().to(alpha)
        shapes = _shapes(self.model, FaceParameters(alpha, parameters.expression))
        moved = torch.einsum("n,nvc->vc", weights.to(shapes.neutral), shapes.displacements)
        return (shapes.neutral + moved) * self.size + rest * self.rest

    def glb(self, vertices: Float[Tensor, "vertices 3"], *, texture: bool) -> bytes:
        """A GLB file of the face, with its texture or grey."""
        mesh = Mesh(
            vertices=vertices, triangles=self.surface.triangles, uv=self.surface.uv, corner_uv=self.surface.corner_uv
        )
        return b"".join(glb_parts(mesh, "face", texture=self.texture if texture else None))


def _shapes(model: FaceModel, parameters: FaceParameters) -> NamedShapes:
    return named_shapes(model, parameters.to(model.dtype))


def read_face(path: Path, model: FaceModel, photograph: Path | None = None) -> EditableFace:
    """The face of a JSON file of `facerecon infer`.

    Args:
        path: the file.
        model: the face model that it was made with, whole, on the CPU.
        photograph: None: the one that the file names, if it is there.

    Raises:
        DataFileError: it is no such file, a damaged one, or one of another face model.
        OSError, ValueError: the photograph that was given cannot be read.
    """
    document = read_document(path)
    if document.get("format") != FACE_FORMAT:
        raise DataFileError(f"{path}: expected a face of facerecon infer (format {FACE_FORMAT}); it is another file")
    values, names, image = _values(document, path)
    sizes = values.parameters.identity.numel(), values.parameters.expression.numel()
    if sizes != (model.n_identity, model.n_expression) or names != model.expression_names or model.topology is None:
        raise DataFileError(
            f"{path}: expected parameters of a model of {model.n_identity} x {model.n_expression}; got {sizes[0]} x "
            f"{sizes[1]}: name their model with --model"
        )
    if photograph is None and image.is_file():
        photograph = image
    pixels = None if photograph is None else read_pixels(photograph)
    mean = Mesh(vertices=model.vertices(model.identity_mean, model.expression_mean), **model.topology.surface())
    return _editable(model, values, mean, pixels)


def _values(document: dict[str, Any], path: Path) -> tuple[FittedFaces, tuple[str, ...], Path]:
    """The face of a document, the names of its expressions and its photograph."""
    try:
        values, names = face_in_document(document).to(torch.float32), tuple(document["expression_weights"])
        require_faces(values, names, batch_axes=0)
        require_shape("landmarks_3d", values.landmarks_3d, (N_LANDMARKS, 3))
        if not float(values.camera.scale) > 0:
            raise ValueError(f"camera.scale must be positive; got {float(values.camera.scale):g}")
        return values, names, Path(document["image"])
    except KeyError as error:
        raise DataFileError(f"{path}: expected a face of facerecon infer; it lacks {error.args[0]!r}") from None
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataFileError(f"{path}: expected a face of facerecon infer; it is damaged: {reason}") from None


def _editable(model: FaceModel, values: FittedFaces, mean: Mesh, pixels: Pixels | None) -> EditableFace:
    parameters = values.parameters.to(model.dtype)
    fitted = model.vertices(parameters.identity, parameters.expression)
    size = _size(model, fitted, values)
    shapes = _shapes(model, values.parameters)
    listed = dict(zip(model.expression_names, values.expression_weights, strict=True))
    weights = torch.stack([listed[name] for name in shapes.names]).to(fitted)
    rest = fitted - shapes.neutral - torch.einsum("n,nvc->vc", weights, shapes.displacements)
    surface, texture = mean, None
    if pixels is not None:
        atlas = TextureAtlas(mean, size=_TEXTURE)
        surface, texture = atlas.textured(mean), encode_texture(atlas.sample(pixels, size * fitted, values.camera))
    return EditableFace(
        model=model, values=values, size=size, rest=size * rest, surface=surface, texture=texture, photograph=pixels
    )


def _size(model: FaceModel, fitted: Tensor, values: FittedFaces) -> float:
    """The ratio of the landmarks in the file, which are at the face's known size, to those of the model's shape."""
    assert model.topology is not None
    inner = fitted[model.topology.landmark_vertices[:49]]
    given = values.landmarks_3d[:49].to(inner)
    return float((given - given.mean(0)).norm() / (inner - inner.mean(0)).norm())
