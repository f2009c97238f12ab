"""One labelled set of photographs, as training and evaluation read it, from any data set."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.formats.checked_columns import columns_digest
from facerecon_torch.structures import FaceParameters, TensorRecord

__all__ = ["FaceSet"]


@dataclass(frozen=True, kw_only=True)
class FaceSet:
    """Photographs with landmarks and true meshes.

    Attributes:
        name: Name of the set.
        images: Files of the photographs.
        subjects: Number of the person in each photograph.
        landmarks: 66 points in image px, in the paper's order, as a detector would give them, or NaN.
        meshes: M, the true surface on the model's topology in mm, moved into the model frame by the true pose alone.
        parameters: g*, in sets made of scans and of people of a face model.
        covered: Vertices of M that the scan measured; the registration extrapolates the others.
        kinds: Class of each photograph, as in E_HAPPY.
        convention: Of the landmarks, one of `landmarks.scheme.CONVENTIONS`.

    Raises:
        ValueError: The columns differ in length, or the set is empty.
    """

    name: str
    images: tuple[Path, ...]
    subjects: Int[Tensor, "samples"]
    landmarks: Float[Tensor, "samples 66 2"]
    meshes: Float[Tensor, "samples vertices 3"]
    parameters: FaceParameters | None = None
    covered: Bool[Tensor, "samples vertices"] | None = None
    kinds: tuple[str, ...] | None = None
    convention: str = "ibug"

    def __post_init__(self) -> None:
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("name", "convention")}
        counts = {name: len(value) for name, value in values.items() if value is not None}
        if len(set(counts.values())) != 1:
            raise ValueError(f"every column of the set {self.name!r} must have one row per sample; got {counts}")
        if not len(self.images):
            raise ValueError(f"the set {self.name!r} must hold at least one sample; it is empty")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Int[Tensor, "rows"]) -> "FaceSet":
        """The samples `rows`."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        columns: dict[str, Any] = {name: v[rows] for name, v in values.items() if isinstance(v, (Tensor, TensorRecord))}
        columns |= {name: tuple(v[k] for k in rows.tolist()) for name, v in values.items() if isinstance(v, tuple)}
        return replace(self, **columns)

    def digest(self) -> str:
        """The SHA-256 of all columns; of photographs it takes the names, not the pixels."""
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        tensors = {name: values.cpu() for name, values in columns.items() if isinstance(values, Tensor)}
        if self.parameters is not None:
            tensors["parameters"] = self.parameters.flat.cpu()
        texts = {name: repr(values) for name, values in columns.items() if isinstance(values, (str, tuple))}
        return columns_digest(tensors, texts)
