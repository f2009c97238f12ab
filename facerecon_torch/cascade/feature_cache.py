"""Faces as all stages, folds and methods of a training run read them: HOG maps or 8-bit crops, computed once."""

import math
import os
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from facerecon_torch.features.hog import HogField, HogMaps, HogSpec, hog_field, hog_maps
from facerecon_torch.files import require_space
from facerecon_torch.runtime.device import to_device
from facerecon_torch.runtime.memory import CacheLocation, halve_on_out_of_memory

__all__ = ["FeatureCache", "encode_crops", "keeps_crops", "new_table", "row_bytes", "write_crops"]

LARGEST_MAP = 2**20  # bytes a sample; larger maps (stride 1, 2) are computed from the crops again at every stage

_Cache = TypeVar("_Cache", bound="FeatureCache")


@dataclass(frozen=True, kw_only=True)
class FeatureCache:
    """Faces as stages read them.

    `landmarks` are in crop px. `table` holds a row per cached face, made by `encode_crops`; it is shared by all
    selections of rows and never copied. Sample i is row `rows[i]` of it.
    """

    landmarks: Float[Tensor, "n 66 2"]
    table: Shaped[Tensor, "cached *row"]
    rows: Int[Tensor, "n"]
    hog: HogSpec

    def __len__(self) -> int:
        return len(self.landmarks)

    def __getitem__(self: _Cache, rows: Int[Tensor, "some"]) -> _Cache:
        """The samples `rows`."""
        landmarks = self.landmarks[rows.to(self.landmarks.device)]
        return replace(self, landmarks=landmarks, rows=self.rows[rows.to(self.rows.device)])

    def read(self, parts: Iterable[slice], device: torch.device) -> Iterator[tuple[slice, Tensor]]:
        """The table rows of each part of the samples, on `device`; from the host to CUDA, the next part is copied while
        this one is in use."""
        pending: deque[slice] = deque()

        def selected() -> Iterator[Tensor]:
            for part in parts:
                pending.append(part)
                yield self.table[self.rows[part].to(self.table.device)]

        for table in to_device(selected(), device):
            yield pending.popleft(), table

    def field(self, table: Tensor, like: Tensor) -> HogField:
        """The HOG field of some rows of the table, in the dtype and on the device of `like`."""
        moved = table.to(like.device).to(like.dtype)  # the small dtype travels
        if table.dtype == torch.uint8:
            return hog_field(moved / 255, self.hog)
        return HogField(HogMaps(moved, self.hog), self.hog)


def keeps_crops(spec: HogSpec, size: int, dtype: torch.dtype) -> bool:
    """Whether crops of `size` x `size` px are kept as 8-bit pixels: their maps in `dtype` are large, or unused."""
    return spec.evaluation != "dense" or size**2 // spec.stride**2 * spec.bins * dtype.itemsize > LARGEST_MAP


def encode_crops(
    crops: Float[Tensor, "n 3 size size"], spec: HogSpec, keep: torch.dtype = torch.float16
) -> Shaped[Tensor, "n *row"]:
    """The table rows of crops in [0, 1]: dense HOG maps in the dtype `keep`, or 8-bit pixels (`keeps_crops`)."""
    if keeps_crops(spec, crops.shape[-1], keep):
        return (crops * 255).round().to(torch.uint8)
    return hog_maps(crops, spec).histograms.to(keep)


def row_bytes(size: int, spec: HogSpec, keep: torch.dtype = torch.float16) -> int:
    """Bytes of the table row of a crop of `size` x `size` px."""
    return encode_crops(torch.zeros(1, 3, size, size), spec, keep).nbytes


def new_table(
    samples: int, size: int, spec: HogSpec, location: CacheLocation, *, keep: torch.dtype = torch.float16
) -> Shaped[Tensor, "samples *row"]:
    """An uninitialised table for crops of `size` x `size` px. Raises OSError if the disk has no room for its file."""
    row = encode_crops(torch.zeros(1, 3, size, size), spec, keep)
    shape, dtype = (samples, *row.shape[1:]), row.dtype
    if location.folder is None or not samples:
        return torch.empty(shape, dtype=dtype, device=location.device)
    total = samples * row.nbytes
    require_space(location.folder, total)  # a write to a mapped file on a full disk would kill the process silently
    location.folder.mkdir(parents=True, exist_ok=True)
    path = location.folder / f".crops-{uuid.uuid4().hex}.part"
    try:
        _reserve(path, total)
        return torch.from_file(str(path), shared=True, size=math.prod(shape), dtype=dtype).view(shape)
    finally:
        path.unlink(missing_ok=True)  # the mapping stays; no file is left, however the run ends


def write_crops(table: Shaped[Tensor, "n *row"], crops: Float[Tensor, "n 3 size size"], spec: HogSpec) -> None:
    """Fill the rows of a table with crops in [0, 1]; in halves if memory runs out."""
    keep = torch.float16 if table.dtype == torch.uint8 else table.dtype

    def write(part: slice) -> None:
        table[part] = encode_crops(crops[part], spec, keep)

    halve_on_out_of_memory(write, range(len(crops)), len(crops))


def _reserve(path: Path, size: int) -> None:
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
