"""Fitted faces, and the JSON file of one of them.

Values are in the units of the structures: px in the image, mm in the model frame. `format` and `version` mark this
package's files and the layout's version. A detected landmark that is missing (NaN) is [null, null].
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.cascade.plausibility import Plausibility, is_unsure
from facerecon_torch.cascade.reconstruction import Reconstruction
from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.export.meshes import suffixed_path
from facerecon_torch.files import write_json
from facerecon_torch.formats.face_document import FACE_FORMAT
from facerecon_torch.landmarks.scheme import is_present
from facerecon_torch.structures import Camera, FaceParameters, TensorRecord

__all__ = [
    "JSON_VERSION",
    "MEASURES",
    "FittedFaces",
    "face_in_document",
    "require_faces",
    "save_parameters_json",
]

JSON_VERSION = 4
MEASURES = {
    "residual_mm": "residual",
    "contour_residual_mm": "contour_residual",
    "shape_distance": "shape_distance",
    "view_angle": "view_angle",
    "proportion": "proportion",
    "reprojection_px": "reprojection",
    "disagreement_mm": "disagreement",
    "pose_excess": "pose_excess",
    "predicted_error_mm": "predicted_error",
}
"""Columns of `Plausibility`, beside `score`."""


@dataclass(frozen=True, kw_only=True)
class FittedFaces(TensorRecord):
    """The values of fitted faces that files hold: of one face without batch axis, or of a batch [n].

    Attributes:
        boxes: (x0, y0, x1, y1) in px.
        scores: Scores of the detector.
        parameters: Weights of the face model.
        expression_weights: Weights of the named expressions.
        camera: Camera of the image.
        landmarks_2d: Detected landmarks in px; NaN where missing.
        landmarks_3d: Landmarks of the fitted face in mm, model frame.
        projected_2d: Their projection by the camera, in px.
        plausibility: Measures that tell whether the landmarks are those of a face.
    """

    boxes: Float[Tensor, "*n 4"]
    scores: Float[Tensor, "*n"]
    parameters: FaceParameters
    expression_weights: Float[Tensor, "*n names"]
    camera: Camera
    landmarks_2d: Float[Tensor, "*n landmarks 2"]
    landmarks_3d: Float[Tensor, "*n landmarks 3"]
    projected_2d: Float[Tensor, "*n landmarks 2"]
    plausibility: Plausibility

    @classmethod
    def of(cls, faces: Reconstruction) -> "FittedFaces":
        """The values of a reconstruction."""
        weights = list(faces.expression_weights.values())
        return cls(
            boxes=faces.boxes,
            scores=faces.scores,
            parameters=faces.parameters,
            expression_weights=torch.stack(weights, -1) if weights else faces.size.new_empty(*faces.size.shape, 0),
            camera=faces.camera,
            landmarks_2d=faces.landmarks,
            landmarks_3d=faces.landmarks_3d,
            projected_2d=faces.projected_2d,
            plausibility=faces.plausibility,
        )


def save_parameters_json(
    face: FittedFaces,
    path: str | os.PathLike[str],
    *,
    image: str,
    number: int,
    expression_names: Sequence[str],
    count: int = 1,
    made_from: Mapping[str, str | None] | None = None,
    convention: str | None = None,
) -> Path:
    """The path of a JSON file with one face, which bears the mark of this format.

    Args:
        face: The values of one face, without batch axis.
        path: The file to write; it must end in .json.
        image: Path of the image.
        number: Number of the face in its image, from 0.
        expression_names: One name for each of the face's expression weights.
        count: Number of faces in the image.
        made_from: Digests of what the face was made from, by name.
        convention: What the landmarks mean (`landmarks.scheme.CONVENTIONS`), where it is known.

    Raises:
        ValueError: The suffix is another one, a shape does not fit, or a value is not finite.

    Example:
        save_parameters_json(faces[0], "photo.json", image="photo.jpg", number=0, expression_names=names)
    """
    target = suffixed_path(path, ".json")
    names = tuple(expression_names)
    require_faces(face, names, batch_axes=0)
    camera = face.camera
    document = {
        "format": FACE_FORMAT,
        "version": JSON_VERSION,
        "made_from": dict(made_from or {}),
        "convention": convention,
        "faces": count,
        "image": image,
        "face": number,
        "box": _list(face.boxes),
        "score": float(face.scores),
        "plausible": bool(face.plausibility.plausible),
        "warnings": face.plausibility.reasons(),
        **{column: float(getattr(face.plausibility, name)) for column, name in MEASURES.items()},
        "alpha": _list(face.parameters.identity),
        "beta": _list(face.parameters.expression),
        "expression_weights": dict(zip(names, _list(face.expression_weights), strict=True)),
        "camera": {
            "rotation": _list(camera.rotation.reshape(9)),
            "scale": float(camera.scale),
            "translation": _list(camera.translation),
            "degenerate": bool(camera.degenerate),
        },
        "landmarks_2d": _points(face.landmarks_2d),
        "landmarks_3d": _list(face.landmarks_3d),
        "projected_2d": _list(face.projected_2d),
    }
    return write_json(target, document)


def face_in_document(content: Mapping[str, Any]) -> FittedFaces:
    """The values of the face in a document of `save_parameters_json`, in float64 on the CPU.

    Raises:
        KeyError, TypeError, ValueError: the document lacks an entry, or has another kind of value there.

    Example:
        face = face_in_document(json.loads(Path("photo.json").read_text()))
    """
    camera = content["camera"]

    def numbers(values: Any) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    def points(values: Any) -> Tensor:
        return torch.from_numpy(np.array(values, dtype=np.float64))  # null becomes NaN

    return FittedFaces(
        boxes=numbers(content["box"]),
        scores=numbers(content["score"]),
        parameters=FaceParameters(identity=numbers(content["alpha"]), expression=numbers(content["beta"])),
        expression_weights=numbers(list(content["expression_weights"].values())),
        camera=Camera(
            rotation=numbers(camera["rotation"]).reshape(3, 3),
            scale=numbers(camera["scale"]),
            translation=numbers(camera["translation"]),
            degenerate=torch.tensor(camera["degenerate"]),
        ),
        landmarks_2d=points(content["landmarks_2d"]),
        landmarks_3d=numbers(content["landmarks_3d"]),
        projected_2d=numbers(content["projected_2d"]),
        plausibility=Plausibility(
            **{name: numbers(content[column]) for column, name in MEASURES.items()},
            score=numbers(content["score"]),
            unsure=is_unsure(numbers(content["score"]), content.get("convention")),
            degenerate=torch.tensor(camera["degenerate"]),
        ),
    )


def require_faces(faces: FittedFaces, names: tuple[str, ...], *, batch_axes: int) -> None:
    """Raise ValueError for faces whose shapes do not fit, or with a value that is not finite.

    Args:
        faces: One face or a batch.
        names: Of the expression weights.
        batch_axes: 0 for one face, 1 for a batch.
    """
    camera = faces.camera
    for name, value, shape in (
        ("box", faces.boxes, (4,)),
        ("score", faces.scores, ()),
        ("parameters.identity", faces.parameters.identity, (None,)),
        ("parameters.expression", faces.parameters.expression, (None,)),
        ("expression_weights", faces.expression_weights, (len(names),)),
        ("camera.rotation", camera.rotation, (3, 3)),
        ("camera.scale", camera.scale, ()),
        ("camera.translation", camera.translation, (2,)),
        ("landmarks_2d", faces.landmarks_2d, (None, 2)),
        ("landmarks_3d", faces.landmarks_3d, (None, 3)),
        ("projected_2d", faces.projected_2d, (None, 2)),
        *((column, getattr(faces.plausibility, name), ()) for column, name in MEASURES.items()),
    ):
        require_shape(name, value, shape)
        if value.ndim != len(shape) + batch_axes or (batch_axes and len(value) != len(faces.scores)):
            kind = "one face" if not batch_axes else f"a batch of {len(faces.scores)} faces"
            raise ValueError(f"{name} must belong to {kind}; got shape {tuple(value.shape)}")
        require_finite(name, value[is_present(value)] if name == "landmarks_2d" else value)


def _list(values: Tensor) -> list[Any]:
    content: list[Any] = values.detach().cpu().tolist()
    return content


def _points(points: Float[Tensor, "n 2"]) -> list[Any]:
    """The points, [null, null] for missing ones."""
    present = is_present(points).tolist()
    return [point if there else [None, None] for point, there in zip(_list(points), present)]
