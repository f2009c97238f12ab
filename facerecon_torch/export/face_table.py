"""The Parquet table of fitted faces, a row per face; docs/batch.md describes its columns.

Values are those of the JSON files, in px of the image and mm of the model frame. `facerecon_format` in the metadata
marks this package's tables and holds the version of the layout.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.export.meshes import suffixed_path
from facerecon_torch.export.parameters import MEASURES, FittedFaces, require_faces
from facerecon_torch.files import replacing
from facerecon_torch.formats.face_document import CONVENTION_KEY
from facerecon_torch.geometry.rotation import matrix_to_euler
from facerecon_torch.structures import Camera, FaceParameters

__all__ = ["FORMAT", "FaceTable", "ImageRow", "face_columns", "solved_columns"]

FORMAT = 3
"""Version of the table's layout."""
_ROWS = 8192  # written at a time; 50 MB of float64


@dataclass(frozen=True, kw_only=True)
class ImageRow:
    """The columns about the image, the same in all rows of its faces.

    Attributes:
        input: number of the image among the inputs of the run, from 0; rows are written in this order.
        path: of the image.
        id: a name from a manifest; None: the path.
        frame: number of a frame of a video.
        time: of that frame, seconds.
        subject: the person, where it is known.
        sha256: of the image file.
        files: path of the image's own result files in the output folder, without suffix; None where there are none.
    """

    input: int
    path: str
    id: str | None = None
    frame: int | None = None
    time: float | None = None
    subject: str | None = None
    sha256: str | None = None
    files: str | None = None


class FaceTable:
    """Faces, collected image by image and written as one Parquet table with a row per face.

    Args:
        expression_names: Names of the expression weights of all faces.
        convention: What the landmarks mean, where it is known.
        fingerprint: Of what the faces were made with.

    Example:
        table = FaceTable(model.expression_names)
        table.append(ImageRow(input=0, path="photo.jpg"), faces)
        table.save("part-00000.parquet")
    """

    def __init__(
        self, expression_names: Sequence[str], *, convention: str | None = None, fingerprint: str | None = None
    ) -> None:
        self._names, self._fingerprint = tuple(expression_names), fingerprint
        self.schema = _schema(self._names, convention)
        self._images: list[tuple[ImageRow, FittedFaces]] = []

    def __len__(self) -> int:
        return sum(len(faces) for _, faces in self._images)

    def append(self, image: ImageRow, faces: FittedFaces) -> None:
        """Add the faces of one image.

        Args:
            image: About the image.
            faces: A batch on the CPU; the number of a face is its row.

        Raises:
            ValueError: A shape does not fit the names, or a value is not finite.
        """
        self.require(faces)
        if len(faces):
            self._images.append((image, faces))

    def require(self, faces: FittedFaces) -> None:
        """Raise ValueError for a batch whose shapes do not fit the names, or with a value that is not finite."""
        require_faces(faces, self._names, batch_axes=1)

    def save(self, path: str | os.PathLike[str], *, beside: Any = None) -> Path:
        """The path of the table; without faces it has its columns and no rows.

        Args:
            path: It must end in .parquet. The file is flushed to the disk before it gets its name.
            beside: An Arrow table of the same schema, whose rows are written too, in the order of `input`.

        Raises:
            ValueError: Another suffix.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        target = suffixed_path(path, ".parquet")
        with replacing(target, flush=True) as aside, pq.ParquetWriter(aside, self.schema, compression="zstd") as writer:
            if beside is not None:
                rows = [self._arrow_table(images) for images in self._chunks()]
                joined = pa.concat_tables([beside, *rows])
                writer.write_table(joined.sort_by([("input", "ascending"), ("face", "ascending")]))
                return target
            for images in self._chunks():
                writer.write_table(self._arrow_table(images))
            if not self._images:
                writer.write_table(self.schema.empty_table())
        return target

    def _chunks(self) -> list[list[tuple[ImageRow, FittedFaces]]]:
        """The images in order, in groups of about _ROWS faces."""
        chunks: list[list[tuple[ImageRow, FittedFaces]]] = []
        rows = _ROWS
        for entry in sorted(self._images, key=lambda entry: entry[0].input):
            if rows >= _ROWS:
                chunks.append([])
                rows = 0
            chunks[-1].append(entry)
            rows += len(entry[1])
        return chunks

    def _arrow_table(self, images: Sequence[tuple[ImageRow, FittedFaces]]) -> Any:
        import pyarrow as pa

        faces = FittedFaces.cat([faces for _, faces in images])
        columns = _image_columns(pa, images, self._fingerprint) | face_columns(faces, self.schema)
        return pa.table([columns[name] for name in self.schema.names], schema=self.schema)


def _schema(names: tuple[str, ...], convention: str | None) -> Any:
    import pyarrow as pa

    real, whole, text = pa.float64(), pa.int64(), pa.string()
    camera = pa.struct(
        [
            ("rotation", pa.list_(real, 9)),
            ("scale", real),
            ("translation", pa.list_(real, 2)),
            ("degenerate", pa.bool_()),
        ]
    )
    columns = [
        ("input", whole),
        ("id", text),
        ("path", text),
        ("frame", whole),
        ("time", real),
        ("subject", text),
        ("face", whole),
        ("status", text),
        ("box", pa.list_(real, 4)),
        ("score", real),
        ("plausible", pa.bool_()),
        *((column, real) for column in MEASURES),
        ("alpha", pa.list_(real)),
        ("beta", pa.list_(real)),
        ("expression_weights", pa.struct([(name, real) for name in names])),
        ("camera", camera),
        ("euler_degrees", pa.list_(real, 3)),
        ("landmarks_2d", pa.list_(pa.list_(real, 2))),
        ("landmarks_3d", pa.list_(pa.list_(real, 3))),
        ("projected_2d", pa.list_(pa.list_(real, 2))),
        ("sha256", text),
        ("fingerprint", text),
        ("files", text),
    ]
    kept = [column for column in columns if names or column[0] != "expression_weights"]  # Parquet has no empty group
    metadata = {"facerecon_format": str(FORMAT), "units": "px in the image frame, mm in the model frame"}
    return pa.schema(kept, metadata=metadata | ({CONVENTION_KEY: convention} if convention else {}))


def _image_columns(pa: Any, images: Sequence[tuple[ImageRow, FittedFaces]], fingerprint: str | None) -> dict[str, Any]:
    """The columns that say where a face comes from."""
    rows = [image for image, faces in images for _ in range(len(faces))]
    columns = {name: [getattr(row, name) for row in rows]
               for name in ("input", "path", "frame", "time", "subject", "sha256", "files")}  # fmt: skip
    types = {"input": pa.int64(), "frame": pa.int64(), "time": pa.float64()}
    return {name: pa.array(values, types.get(name, pa.string())) for name, values in columns.items()} | {
        "id": pa.array([row.path if row.id is None else row.id for row in rows], pa.string()),
        "face": pa.array([k for _, faces in images for k in range(len(faces))], pa.int64()),
        "status": pa.array(["ok"] * len(rows), pa.string()),
        "fingerprint": pa.array([fingerprint] * len(rows), pa.string()),
    }


def face_columns(faces: FittedFaces, schema: Any) -> dict[str, Any]:
    """The columns of the table that a batch of faces fills, as Arrow arrays by name.

    Args:
        faces: A batch on the CPU.
        schema: Of the table.
    """
    import pyarrow as pa

    return {
        "box": _vectors(pa, _array(faces.boxes)),
        "score": pa.array(_array(faces.scores)),
        "plausible": pa.array(faces.plausibility.plausible.numpy()),
        **{column: pa.array(_array(getattr(faces.plausibility, name))) for column, name in MEASURES.items()},
        "landmarks_2d": _lists(pa, _vectors(pa, _array(faces.landmarks_2d.flatten(0, 1))), len(faces)),
        **solved_columns(
            faces.parameters, faces.camera, faces.expression_weights, faces.landmarks_3d, faces.projected_2d, schema
        ),
    }


def solved_columns(
    parameters: FaceParameters,
    camera: Camera,
    weights: Float[Tensor, "n names"],
    landmarks_3d: Float[Tensor, "n landmarks 3"],
    projected_2d: Float[Tensor, "n landmarks 2"],
    schema: Any,
) -> dict[str, Any]:
    """The columns that a solution for a batch of faces fills, as Arrow arrays by name.

    Args:
        parameters: Of the faces, on the CPU.
        camera: Of every picture.
        weights: Of the named expressions.
        landmarks_3d: Of the fitted faces, mm.
        projected_2d: Their projections, px.
        schema: Of the table.
    """
    import pyarrow as pa

    n = len(landmarks_3d)
    cameras = (
        _vectors(pa, _array(camera.rotation.flatten(1))),
        pa.array(_array(camera.scale)),
        _vectors(pa, _array(camera.translation)),
        pa.array(camera.degenerate.numpy()),
    )
    euler = torch.rad2deg(torch.stack(matrix_to_euler(camera.rotation), dim=-1))
    columns = {
        "alpha": _lists(pa, pa.array(_array(parameters.identity).reshape(-1)), n),
        "beta": _lists(pa, pa.array(_array(parameters.expression).reshape(-1)), n),
        "camera": pa.StructArray.from_arrays(cameras, fields=list(schema.field("camera").type)),
        "euler_degrees": _vectors(pa, _array(euler)),
        "landmarks_3d": _lists(pa, _vectors(pa, _array(landmarks_3d.flatten(0, 1))), n),
        "projected_2d": _lists(pa, _vectors(pa, _array(projected_2d.flatten(0, 1))), n),
    }
    if "expression_weights" in schema.names:
        values = [pa.array(column) for column in _array(weights.mT)]
        fields = list(schema.field("expression_weights").type)
        columns["expression_weights"] = pa.StructArray.from_arrays(values, fields=fields)
    return columns


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
