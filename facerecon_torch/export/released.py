"""Fitted weights in the form in which ground truth is released: a .mat and a .data file per sample, and one table.

NAME.mat     wID [1, I], wEP [1, E], R [3, 3], T [3, 1] in mm, or [2, 1] in px with a scale s in px per mm
NAME.data    the 66 landmarks, 132 little-endian float32: x0 y0 x1 y1 ... in px, (0, 0) at the first pixel's centre
samples.parquet    all values, a row per sample
"""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.export.meshes import suffixed_path
from facerecon_torch.files import replacing
from facerecon_torch.landmarks.scheme import N_LANDMARKS
from facerecon_torch.structures import FaceParameters

__all__ = ["ReleasedSample", "save_landmarks_data", "save_released_table", "save_weights_mat"]

_MAT_HEADER = 116  # bytes of free text, where scipy writes the time of day


@dataclass(frozen=True, kw_only=True)
class ReleasedSample:
    """One face with its pose.

    Attributes:
        name: Stem of its files.
        image: Path of its image.
        parameters: Weights of the face model.
        rotation: R.
        translation: T: three numbers in mm (surface = R v + T), or two in px (the camera of Eq. 4).
        scale: Scale of the camera in px/mm; None for a translation in mm.
        landmarks: Landmarks in px; None if there are none.
        columns: Further columns of the table.

    Raises:
        ValueError: A shape does not fit, or a value is not finite.
    """

    name: str
    image: str
    parameters: FaceParameters
    rotation: Float[Tensor, "3 3"]
    translation: Float[Tensor, "n"]
    scale: float | None
    landmarks: Float[Tensor, "66 2"] | None
    columns: dict[str, str | float | int | list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if tuple(self.translation.shape) != ((3,) if self.scale is None else (2,)):
            wanted = "3 numbers in mm, or 2 in px with a scale"
            raise ValueError(f"translation must be {wanted}; got {tuple(self.translation.shape)}, scale {self.scale}")
        for name, values in (
            ("identity", self.parameters.identity),
            ("expression", self.parameters.expression),
            ("rotation", self.rotation),
            ("translation", self.translation),
        ):
            require_finite(f"{name} of {self.name}", values)
        if self.landmarks is not None:
            require_shape("landmarks", self.landmarks, (N_LANDMARKS, 2))
            require_finite(f"landmarks of {self.name}", self.landmarks)


def save_weights_mat(sample: ReleasedSample, path: str | os.PathLike[str]) -> Path:
    """The path of a MATLAB 5 file with wID, wEP, R, T (and s) in float64.

    The same sample gives the same bytes. Raises ValueError for another suffix.
    """
    from scipy.io import savemat

    target = suffixed_path(path, ".mat")
    content = {
        "wID": sample.parameters.identity[None],
        "wEP": sample.parameters.expression[None],
        "R": sample.rotation,
        "T": sample.translation[:, None],
    }
    arrays = {name: values.detach().double().cpu().numpy() for name, values in content.items()}
    if sample.scale is not None:
        arrays["s"] = np.array([[sample.scale]])
    stream = io.BytesIO()
    savemat(stream, arrays, oned_as="row")  # type: ignore[arg-type]  # its stubs know paths only
    text = b"MATLAB 5.0 MAT-file, facerecon_torch: mm, px".ljust(_MAT_HEADER)
    with replacing(target) as aside:
        aside.write_bytes(text + stream.getvalue()[_MAT_HEADER:])
    return target


def save_landmarks_data(landmarks: Float[Tensor, "66 2"], path: str | os.PathLike[str]) -> Path:
    """The path of a file with 66 points in px, as 528 bytes of float32.

    Raises ValueError for another suffix or shape, and for points that are not finite.
    """
    target = suffixed_path(path, ".data")
    require_shape("landmarks", landmarks, (N_LANDMARKS, 2))
    require_finite("landmarks", landmarks)
    with replacing(target) as aside:
        aside.write_bytes(landmarks.detach().cpu().numpy().astype("<f4").tobytes())
    return target


def save_released_table(samples: Sequence[ReleasedSample], path: str | os.PathLike[str]) -> Path:
    """The path of a table of all samples: rotations row by row, landmarks as in the .data files, or null.

    Raises ValueError for another suffix, and for samples with different further columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    target = suffixed_path(path, ".parquet")
    columns = [tuple(sample.columns) for sample in samples]
    if len(set(columns)) > 1:
        raise ValueError(f"every sample must have the same further columns; got {sorted(set(columns))}")
    rows = [_row(sample) for sample in samples]
    real = pa.list_(pa.float64())
    fields = [("name", pa.string()), ("image", pa.string()), ("wID", real), ("wEP", real), ("R", real), ("T", real)]
    fields += [("s", pa.float64()), ("landmarks", pa.list_(pa.float32()))]
    further = {name: _kind(pa, value) for name, value in (samples[0].columns if samples else {}).items()}
    table = pa.Table.from_pylist(rows, schema=pa.schema([*fields, *further.items()]))
    with replacing(target) as aside:
        pq.write_table(table, aside, compression="zstd")
    return target


def _row(sample: ReleasedSample) -> dict[str, object]:
    def numbers(values: Tensor) -> list[float]:
        return [float(value) for value in values.detach().double().cpu().flatten().tolist()]

    return {
        "name": sample.name,
        "image": sample.image,
        "wID": numbers(sample.parameters.identity),
        "wEP": numbers(sample.parameters.expression),
        "R": numbers(sample.rotation),
        "T": numbers(sample.translation),
        "s": sample.scale,
        "landmarks": None if sample.landmarks is None else numbers(sample.landmarks.to(torch.float32)),
        **sample.columns,
    }


def _kind(pa: object, value: object) -> object:
    kinds = {str: "string", float: "float64", int: "int64", bool: "bool_"}
    if isinstance(value, list):
        return pa.list_(pa.string())  # type: ignore[attr-defined]
    return getattr(pa, kinds[type(value)])()
