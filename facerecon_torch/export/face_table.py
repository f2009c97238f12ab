"""The faces of a run as rows of numbers: collected by the batch, written as one Parquet table.

A row holds what a `FaceRecord` holds. The table is that of `save_parameters_parquet`, made from whole columns instead
of one object a face.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.export.arrays import suffixed_path
from facerecon_torch.export.parameters import FaceRecord, parquet_schema
from facerecon_torch.files import replacing
from facerecon_torch.structures import Camera, FaceParameters

__all__ = ["FaceLayout", "FaceTable"]

_ROWS = 8192  # written at a time: 50 MB of float64
_N_LANDMARKS = 66


@dataclass(frozen=True)
class FaceLayout:
    """Where the numbers of a face stand in its row."""

    n_identity: int
    n_expression: int
    expression_names: tuple[str, ...]

    @property
    def widths(self) -> dict[str, int]:
        """Numbers of every part of a row, in their order."""
        return {
            "alpha": self.n_identity,
            "beta": self.n_expression,
            "expression_weights": len(self.expression_names),
            "rotation": 9,
            "scale": 1,
            "translation": 2,
            "degenerate": 1,
            "landmarks_2d": 2 * _N_LANDMARKS,
            "landmarks_3d": 3 * _N_LANDMARKS,
            "projected_2d": 2 * _N_LANDMARKS,
        }

    def pack(
        self,
        parameters: FaceParameters,
        expression_weights: Float[Tensor, "n names"],
        camera: Camera,
        landmarks_2d: Float[Tensor, "n 66 2"],
        landmarks_3d: Float[Tensor, "n 66 3"],
        projected_2d: Float[Tensor, "n 66 2"],
    ) -> Float[Tensor, "n numbers"]:
        """Faces as rows, on their device: one array to copy from it."""
        parts = (
            parameters.identity,
            parameters.expression,
            expression_weights,
            camera.rotation.flatten(1),
            camera.scale[:, None],
            camera.translation,
            camera.degenerate[:, None].to(camera.scale.dtype),
            landmarks_2d.flatten(1),
            landmarks_3d.flatten(1),
            projected_2d.flatten(1),
        )
        return torch.cat(parts, dim=1)

    def parts(self, rows: Float[Tensor, "*n numbers"]) -> dict[str, Tensor]:
        """Views of the columns of every part."""
        return dict(zip(self.widths, torch.split(rows, list(self.widths.values()), dim=-1)))

    def degenerate(self, rows: Float[Tensor, "n numbers"]) -> Bool[Tensor, "n"]:
        """Faces whose landmarks could not fix a camera."""
        return self.parts(rows)["degenerate"][:, 0] > 0

    def record(
        self, row: Float[Tensor, "numbers"], image: str, face: int, box: tuple[float, ...], score: float
    ) -> FaceRecord:
        """One row as a record. Raises ValueError where a number is not finite."""
        part = self.parts(row)
        camera = Camera(
            rotation=part["rotation"].reshape(3, 3),
            scale=part["scale"][0],
            translation=part["translation"],
            degenerate=part["degenerate"][0] > 0,
        )
        x0, y0, x1, y1 = box
        return FaceRecord(
            image=image,
            face=face,
            box=(x0, y0, x1, y1),
            score=score,
            parameters=FaceParameters(identity=part["alpha"], expression=part["beta"]),
            expression_names=self.expression_names,
            expression_weights=part["expression_weights"],
            camera=camera,
            landmarks_2d=part["landmarks_2d"].reshape(-1, 2),
            landmarks_3d=part["landmarks_3d"].reshape(-1, 3),
            projected_2d=part["projected_2d"].reshape(-1, 2),
        )

    def row(self, record: FaceRecord) -> Float[Tensor, "numbers"]:
        """A record as a row."""
        return self.pack(
            FaceParameters(identity=record.parameters.identity[None], expression=record.parameters.expression[None]),
            record.expression_weights[None],
            record.camera[None],
            record.landmarks_2d[None],
            record.landmarks_3d[None],
            record.projected_2d[None],
        )[0]


class FaceTable:
    """Faces in any order; written in the order of their `position`, the place of their picture in the run."""

    def __init__(self, layout: FaceLayout) -> None:
        self._layout = layout
        self._rows: list[Tensor] = []
        self._faces: list[tuple[int, int, str, tuple[float, ...], float]] = []

    def __len__(self) -> int:
        return len(self._faces)

    def add(
        self,
        rows: Float[Tensor, "n numbers"],
        faces: Sequence[tuple[int, int, str, tuple[float, ...], float]],
    ) -> None:
        """Rows on the CPU, and of every one (position, number of the face in its picture, picture, box, score)."""
        if len(rows) != len(faces):
            raise ValueError(f"every row must be of one face; got {len(rows)} rows and {len(faces)} faces")
        if len(faces):
            self._rows.append(rows)
            self._faces += faces

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write all rows; without any, the table has its columns and no rows. Returns the path."""
        import pyarrow.parquet as pq

        target = suffixed_path(path, ".parquet")
        order = sorted(range(len(self._faces)), key=lambda k: self._faces[k][:2])
        starts = np.cumsum([0, *(len(rows) for rows in self._rows)])
        schema = parquet_schema(self._layout.expression_names)
        with replacing(target) as aside, pq.ParquetWriter(aside, schema, compression="zstd") as writer:
            for k in range(0, max(1, len(order)), _ROWS):
                writer.write_table(self._arrow(order[k : k + _ROWS], starts, schema))
        return target

    def _arrow(self, chosen: list[int], starts: NDArray[np.int64], schema: Any) -> Any:
        import pyarrow as pa

        blocks = np.searchsorted(starts, chosen, side="right") - 1
        rows = [self._rows[b][k - starts[b]] for b, k in zip(blocks, chosen)]
        layout = self._layout
        values = torch.stack(rows).double() if rows else torch.empty(0, sum(layout.widths.values())).double()
        part = {name: columns.numpy() for name, columns in layout.parts(values).items()}
        faces = [self._faces[k] for k in chosen]
        camera = (
            _fixed(pa, part["rotation"]),
            pa.array(part["scale"][:, 0]),
            _fixed(pa, part["translation"]),
            pa.array(part["degenerate"][:, 0] > 0),
        )
        columns = {
            "image": pa.array([face[2] for face in faces], pa.string()),
            "face": pa.array([face[1] for face in faces], pa.int64()),
            "box": _fixed(pa, np.array([face[3] for face in faces], dtype=np.float64).reshape(-1, 4)),
            "score": pa.array([face[4] for face in faces], pa.float64()),
            "alpha": _lists(pa, part["alpha"]),
            "beta": _lists(pa, part["beta"]),
            "camera": pa.StructArray.from_arrays(camera, fields=list(schema.field("camera").type)),
            "landmarks_2d": _points(pa, part["landmarks_2d"], 2),
            "landmarks_3d": _points(pa, part["landmarks_3d"], 3),
            "projected_2d": _points(pa, part["projected_2d"], 2),
        }
        if layout.expression_names:
            weights = [pa.array(column) for column in np.ascontiguousarray(part["expression_weights"].T)]
            fields = list(schema.field("expression_weights").type)
            columns["expression_weights"] = pa.StructArray.from_arrays(weights, fields=fields)
        return pa.table([columns[name] for name in schema.names], schema=schema)


def _fixed(pa: Any, values: NDArray[np.float64]) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])


def _lists(pa: Any, values: NDArray[np.float64]) -> Any:
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.ListArray.from_arrays(pa.array(_offsets(values), pa.int32()), flat)


def _points(pa: Any, values: NDArray[np.float64], size: int) -> Any:
    inner = _fixed(pa, values.reshape(-1, size))
    return pa.ListArray.from_arrays(pa.array(_offsets(values) // size, pa.int32()), inner)


def _offsets(values: NDArray[np.float64]) -> NDArray[np.int64]:
    count, width = values.shape
    offsets: NDArray[np.int64] = np.arange(count + 1, dtype=np.int64) * width
    return offsets
