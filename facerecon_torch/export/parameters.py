"""Fitted parameters -> one JSON file per face, and one Parquet table per run.

Both hold the same values in the units of the structures: pixels in the image, mm in the model frame. The
table's file metadata and the JSON's `format` and `version` carry the version of this layout.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.export.arrays import suffixed_path
from facerecon_torch.files import replacing
from facerecon_torch.structures import Camera, FaceParameters

__all__ = [
    "FORMAT",
    "JSON_FORMAT",
    "JSON_VERSION",
    "FaceRecord",
    "parquet_schema",
    "save_parameters_json",
    "save_parameters_parquet",
]

FORMAT = 1  # of the table
JSON_FORMAT, JSON_VERSION = "facerecon-face", 2


@dataclass(frozen=True)
class FaceRecord:
    """What is known of one face in one image, unbatched.

    `face` counts the faces of the image from 0; `box` is (x0, y0, x1, y1) in px; `landmarks_2d` are the detected
    points in px, `landmarks_3d` those of the fitted face in mm in the model frame, `projected_2d` where its camera
    sees them, in px. Raises ValueError for a shape that does not fit, a value that is not finite, or weights and names
    of different number.
    """

    image: str
    face: int
    box: tuple[float, float, float, float]
    score: float
    parameters: FaceParameters
    expression_names: tuple[str, ...]
    expression_weights: Float[Tensor, "names"]
    camera: Camera
    landmarks_2d: Float[Tensor, "landmarks 2"]
    landmarks_3d: Float[Tensor, "landmarks 3"]
    projected_2d: Float[Tensor, "landmarks 2"]

    def __post_init__(self) -> None:
        for name, value, shape in (
            ("parameters.identity", self.parameters.identity, (None,)),
            ("parameters.expression", self.parameters.expression, (None,)),
            ("expression_weights", self.expression_weights, (len(self.expression_names),)),
            ("camera.rotation", self.camera.rotation, (3, 3)),
            ("camera.scale", self.camera.scale, ()),
            ("camera.translation", self.camera.translation, (2,)),
            ("landmarks_2d", self.landmarks_2d, (None, 2)),
            ("landmarks_3d", self.landmarks_3d, (None, 3)),
            ("projected_2d", self.projected_2d, (None, 2)),
        ):
            require_shape(name, value, shape)
            if value.ndim != len(shape):
                raise ValueError(f"{name} must belong to one face; got shape {tuple(value.shape)}")
            require_finite(name, value)
        require_finite("box and score", torch.tensor([*self.box, self.score], dtype=torch.float64))

    def as_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, in the order of the columns."""
        return {
            "image": self.image,
            "face": self.face,
            "box": [float(v) for v in self.box],
            "score": float(self.score),
            "alpha": _list(self.parameters.identity),
            "beta": _list(self.parameters.expression),
            "expression_weights": dict(zip(self.expression_names, _list(self.expression_weights), strict=True)),
            "camera": {
                "rotation": _list(self.camera.rotation.reshape(9)),
                "scale": float(self.camera.scale),
                "translation": _list(self.camera.translation),
                "degenerate": bool(self.camera.degenerate),
            },
            "landmarks_2d": _list(self.landmarks_2d),
            "landmarks_3d": _list(self.landmarks_3d),
            "projected_2d": _list(self.projected_2d),
        }


def _list(values: Tensor) -> list[Any]:
    content: list[Any] = values.detach().cpu().tolist()
    return content


def save_parameters_json(
    record: FaceRecord,
    path: str | os.PathLike[str],
    *,
    faces: int = 1,
    made_from: Mapping[str, str | None] | None = None,
) -> Path:
    """Write one face as a JSON object that bears the mark of this format.

    Args:
        record: the face.
        path: ends in .json.
        faces: of its image.
        made_from: digests of what the face was made from, by name.

    Returns:
        The path.

    Raises:
        ValueError: another suffix.

    Example:
        >>> save_parameters_json(record, "photo.json")
    """
    target = suffixed_path(path, ".json")
    head = {"format": JSON_FORMAT, "version": JSON_VERSION, "made_from": dict(made_from or {}), "faces": faces}
    text = json.dumps({**head, **record.as_dict()}, indent=1, ensure_ascii=False, allow_nan=False)
    with replacing(target) as aside:
        aside.write_text(text + "\n", encoding="utf-8")
    return target


def save_parameters_parquet(
    records: Sequence[FaceRecord], path: str | os.PathLike[str], *, expression_names: Sequence[str]
) -> Path:
    """Write all faces of a run as one table, a row a face; without any face the table has its columns and no
    rows.

    Rotation is stored row by row. Returns the path. Raises ValueError for another suffix or a record whose
    expressions are not `expression_names`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    target = suffixed_path(path, ".parquet")
    names = tuple(expression_names)
    for record in records:
        if record.expression_names != names:
            raise ValueError(
                f"record of {record.image}, face {record.face}, must name the expressions {names}; "
                f"got {record.expression_names}"
            )
    schema = parquet_schema(names)
    rows = [record.as_dict() for record in records]
    if not names:  # Parquet has no group without fields
        rows = [{k: v for k, v in row.items() if k != "expression_weights"} for row in rows]
    table = pa.Table.from_pylist(rows, schema=schema)
    with replacing(target) as aside:
        pq.write_table(table, aside, compression="zstd")
    return target


def parquet_schema(names: tuple[str, ...]) -> Any:
    """The columns of a table of faces whose expressions have these names."""
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
        ("alpha", pa.list_(real)),
        ("beta", pa.list_(real)),
        ("expression_weights", pa.struct([(name, real) for name in names])),
        ("camera", camera),
        ("landmarks_2d", pa.list_(pa.list_(real, 2))),
        ("landmarks_3d", pa.list_(pa.list_(real, 3))),
        ("projected_2d", pa.list_(pa.list_(real, 2))),
    ]
    kept = [column for column in columns if names or column[0] != "expression_weights"]
    metadata = {"facerecon_format": str(FORMAT), "units": "px in the image frame, mm in the model frame"}
    return pa.schema(kept, metadata=metadata)
