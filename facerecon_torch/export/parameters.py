"""Fitted faces in files: one JSON file per face, and one Parquet table per run.

Both hold the same values in the units of the structures: px in the image, mm in the model frame. `format` and `version`
in the JSON file and `facerecon_format` in the table's metadata mark this package's files and the layout's version. A
detected landmark that is missing (NaN) is [null, null] in both.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.cascade.plausibility import Plausibility
from facerecon_torch.cascade.reconstruction import Reconstruction
from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.export.meshes import suffixed_path
from facerecon_torch.files import replacing, write_json
from facerecon_torch.formats.face_document import CONVENTION_KEY, FACE_FORMAT
from facerecon_torch.landmarks.scheme import is_present
from facerecon_torch.structures import Camera, FaceParameters, TensorRecord

__all__ = [
    "FORMAT",
    "JSON_VERSION",
    "FaceTable",
    "FittedFaces",
    "face_in_document",
    "save_parameters_json",
]

FORMAT = 3  # of the table
JSON_VERSION = 4
_MEASURES = {
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
_ROWS = 8192  # written at a time; 50 MB of float64


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
    _require_faces(face, names, batch_axes=0)
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
        **{column: float(getattr(face.plausibility, name)) for column, name in _MEASURES.items()},
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
            **{name: numbers(content[column]) for column, name in _MEASURES.items()},
            score=numbers(content["score"]),
            degenerate=torch.tensor(camera["degenerate"]),
        ),
    )


class FaceTable:
    """The faces of a run, collected image by image and written as one Parquet table with a row per face.

    Args:
        expression_names: Names of the expression weights of all faces.
        convention: What the landmarks mean, where it is known.

    Example:
        table = FaceTable(model.expression_names)
        table.append("photo.jpg", faces, position=0)
        table.save("parameters.parquet")
    """

    def __init__(self, expression_names: Sequence[str], *, convention: str | None = None) -> None:
        self._names, self._convention = tuple(expression_names), convention
        self._images: list[tuple[int, str, FittedFaces]] = []

    def __len__(self) -> int:
        return sum(len(faces) for _, _, faces in self._images)

    def append(self, image: str, faces: FittedFaces, *, position: int) -> None:
        """Add the faces of one image.

        Args:
            image: Path of the image.
            faces: A batch on the CPU; the number of a face is its row.
            position: Place of the image among all images of the run; rows are written in this order.

        Raises:
            ValueError: A shape does not fit the names, or a value is not finite.
        """
        self.require(faces)
        if len(faces):
            self._images.append((position, image, faces))

    def require(self, faces: FittedFaces) -> None:
        """Raise ValueError for a batch whose shapes do not fit the names, or with a value that is not finite."""
        _require_faces(faces, self._names, batch_axes=1)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """The path of the table; without faces it has its columns and no rows. Raises ValueError for another suffix."""
        import pyarrow.parquet as pq

        target = suffixed_path(path, ".parquet")
        schema = _schema(self._names, self._convention)
        with replacing(target) as aside, pq.ParquetWriter(aside, schema, compression="zstd") as writer:
            for images in self._chunks():
                writer.write_table(_arrow_table(images, schema))
            if not self._images:
                writer.write_table(schema.empty_table())
        return target

    def _chunks(self) -> list[list[tuple[int, str, FittedFaces]]]:
        """The images in order, in groups of about _ROWS faces."""
        chunks: list[list[tuple[int, str, FittedFaces]]] = []
        rows = _ROWS
        for entry in sorted(self._images, key=lambda entry: entry[0]):
            if rows >= _ROWS:
                chunks.append([])
                rows = 0
            chunks[-1].append(entry)
            rows += len(entry[2])
        return chunks


def _require_faces(faces: FittedFaces, names: tuple[str, ...], *, batch_axes: int) -> None:
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
        *((column, getattr(faces.plausibility, name), ()) for column, name in _MEASURES.items()),
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


def _schema(names: tuple[str, ...], convention: str | None) -> Any:
    import pyarrow as pa

    real, whole = pa.float64(), pa.int64()
    camera = pa.struct(
        [
            ("rotation", pa.list_(real, 9)),
            ("scale", real),
            ("translation", pa.list_(real, 2)),
            ("degenerate", pa.bool_()),
        ]
    )
    columns = [
        ("image", pa.string()),
        ("face", whole),
        ("box", pa.list_(real, 4)),
        ("score", real),
        ("plausible", pa.bool_()),
        *((column, real) for column in _MEASURES),
        ("alpha", pa.list_(real)),
        ("beta", pa.list_(real)),
        ("expression_weights", pa.struct([(name, real) for name in names])),
        ("camera", camera),
        ("landmarks_2d", pa.list_(pa.list_(real, 2))),
        ("landmarks_3d", pa.list_(pa.list_(real, 3))),
        ("projected_2d", pa.list_(pa.list_(real, 2))),
    ]
    kept = [column for column in columns if names or column[0] != "expression_weights"]  # Parquet has no empty group
    metadata = {"facerecon_format": str(FORMAT), "units": "px in the image frame, mm in the model frame"}
    return pa.schema(kept, metadata=metadata | ({CONVENTION_KEY: convention} if convention else {}))


def _arrow_table(images: Sequence[tuple[int, str, FittedFaces]], schema: Any) -> Any:
    import pyarrow as pa

    faces = FittedFaces.cat([faces for _, _, faces in images])
    camera = (
        _vectors(pa, _array(faces.camera.rotation.flatten(1))),
        pa.array(_array(faces.camera.scale)),
        _vectors(pa, _array(faces.camera.translation)),
        pa.array(faces.camera.degenerate.numpy()),
    )
    columns = {
        "image": pa.array([image for _, image, faces in images for _ in range(len(faces))], pa.string()),
        "face": pa.array([k for _, _, faces in images for k in range(len(faces))], pa.int64()),
        "box": _vectors(pa, _array(faces.boxes)),
        "score": pa.array(_array(faces.scores)),
        "plausible": pa.array(faces.plausibility.plausible.numpy()),
        **{column: pa.array(_array(getattr(faces.plausibility, name))) for column, name in _MEASURES.items()},
        "alpha": _lists(pa, pa.array(_array(faces.parameters.identity).reshape(-1)), len(faces)),
        "beta": _lists(pa, pa.array(_array(faces.parameters.expression).reshape(-1)), len(faces)),
        "camera": pa.StructArray.from_arrays(camera, fields=list(schema.field("camera").type)),
        "landmarks_2d": _lists(pa, _vectors(pa, _array(faces.landmarks_2d.flatten(0, 1))), len(faces)),
        "landmarks_3d": _lists(pa, _vectors(pa, _array(faces.landmarks_3d.flatten(0, 1))), len(faces)),
        "projected_2d": _lists(pa, _vectors(pa, _array(faces.projected_2d.flatten(0, 1))), len(faces)),
    }
    if "expression_weights" in schema.names:
        weights = [pa.array(column) for column in _array(faces.expression_weights.mT)]
        fields = list(schema.field("expression_weights").type)
        columns["expression_weights"] = pa.StructArray.from_arrays(weights, fields=fields)
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _array(values: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = values.detach().to(torch.float64).contiguous().numpy()
    return array


def _vectors(pa: Any, values: NDArray[np.float64]) -> Any:
    """The rows of [n, k] as lists of fixed size."""
    numbers = pa.array(values.reshape(-1), from_pandas=True)  # NaN, of missing landmarks alone, becomes null
    return pa.FixedSizeListArray.from_arrays(numbers, values.shape[1])


def _lists(pa: Any, values: Any, count: int) -> Any:
    """`count` lists of equal length, of the entries of `values`."""
    offsets = np.arange(count + 1) * (len(values) // count)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
