"""Crops of many samples, described once: what all stages, folds and methods of a training run read from."""

import math
import os
import shutil
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.features.hog import HogField, HogMaps, HogSpec, hog_field, hog_maps
from facerecon_torch.runtime.device import to_device
from facerecon_torch.runtime.memory import BankPlace, halve_on_out_of_memory

__all__ = ["BankTable", "CropBank", "build_bank", "keeps_crops", "row_bytes"]

CHUNK = 64  # crops described together
LARGEST_MAP = 2**20  # bytes a sample; larger maps (stride 1, 2) are made again from the crops at every stage


@dataclass(frozen=True)
class CropBank:
    """Dense maps, where they are small enough to keep, or the crops themselves; and the rows in view."""

    spec: HogSpec
    source: HogMaps | Tensor  # crops: uint8 [samples, 3, h, w]
    rows: Int[Tensor, "rows"]

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, rows: Int[Tensor, "rows"]) -> "CropBank":
        """The same bank seen through `rows` of this view; nothing is copied."""
        return replace(self, rows=self.rows[rows.to(self.rows.device)])

    @property
    def row_bytes(self) -> int:
        """Bytes that one sample takes in the bank."""
        table = self._table
        return math.prod(table.shape[1:]) * table.element_size()

    @property
    def _table(self) -> Tensor:
        return self.source.histograms if isinstance(self.source, HogMaps) else self.source

    def field(self, part: slice, like: Tensor) -> HogField:
        """The HOG field of a part of the view, in the dtype and on the device of `like`."""
        return self.describe(self._table[self.rows[part]], like)

    def read(self, parts: Iterable[slice], device: torch.device) -> Iterator[tuple[slice, Tensor]]:
        """The table's rows of each part of the view, on `device`; from the host to CUDA, the next part is copied while
        this one is in use."""
        asked: deque[slice] = deque()

        def tables() -> Iterator[Tensor]:
            for part in parts:
                asked.append(part)
                yield self._table[self.rows[part]]

        for rows in to_device(tables(), device):
            yield asked.popleft(), rows

    def describe(self, table: Tensor, like: Tensor) -> HogField:
        """The HOG field of some rows of the table, in the dtype and on the device of `like`."""
        rows = table.to(like.device).to(like.dtype)  # the small dtype travels
        if isinstance(self.source, HogMaps):
            return HogField(HogMaps(rows, self.spec), self.spec)
        return hog_field(rows / 255, self.spec)


def build_bank(
    crops: Float[Tensor, "samples 3 height width"], spec: HogSpec, *, keep: torch.dtype = torch.float16
) -> CropBank:
    """Describe `crops` in [0, 1] once. Dense maps are kept in the dtype `keep`, on the crops' device."""
    rows = torch.arange(len(crops), device=crops.device)
    dtype = _stored(crops, spec, keep)
    parts = [_described(part, spec, dtype) for part in torch.split(crops, CHUNK)]
    return _bank(parts[0] if len(parts) == 1 else torch.cat(parts), spec, rows)


def row_bytes(size: int, spec: HogSpec, keep: torch.dtype = torch.float16) -> int:
    """Bytes that one crop of `size` x `size` px takes in a bank."""
    bank = build_bank(torch.zeros(1, 3, size, size), spec, keep=keep)
    return bank.row_bytes


class BankTable:
    """A bank that is filled piece by piece: its table is made at full size once, in the place it is told."""

    def __init__(self, samples: int, spec: HogSpec, place: BankPlace, *, keep: torch.dtype = torch.float16) -> None:
        self._samples, self._spec, self._place, self._keep = samples, spec, place, keep
        self._table: Tensor | None = None

    def put(self, start: int, crops: Float[Tensor, "some 3 height width"]) -> None:
        """Describe the crops [0, 1] of the samples from `start` on."""
        dtype = _stored(crops, self._spec, self._keep)

        def describe(part: slice) -> None:
            rows = _described(crops[part], self._spec, dtype)
            if self._table is None:
                self._table = _new_table((self._samples, *rows.shape[1:]), dtype, self._place)
            self._table[start + part.start : start + part.stop] = rows

        if not len(crops) and self._table is None:  # a process may have no sample of a set
            row = _described(crops.new_zeros(1, *crops.shape[1:]), self._spec, dtype)
            self._table = _new_table((self._samples, *row.shape[1:]), dtype, self._place)
        halve_on_out_of_memory(describe, range(len(crops)), CHUNK)

    def bank(self) -> CropBank:
        """What has been put; samples that never were are undefined. Raises ValueError where nothing has."""
        if self._table is None:
            raise ValueError(f"a bank must be filled before it is read; nothing of {self._samples} samples was put")
        return _bank(self._table, self._spec, torch.arange(self._samples, device=self._table.device))


def _bank(table: Tensor, spec: HogSpec, rows: Int[Tensor, "rows"]) -> CropBank:
    return CropBank(spec, table if table.dtype == torch.uint8 else HogMaps(table, spec), rows)


def _described(crops: Float[Tensor, "some 3 height width"], spec: HogSpec, dtype: torch.dtype) -> Tensor:
    """The rows of a table of `dtype`: crops of 8 bits, or maps."""
    if dtype == torch.uint8:
        return (crops * 255).round().to(torch.uint8)
    return hog_maps(crops, spec).histograms.to(dtype)


def keeps_crops(spec: HogSpec, size: int, dtype: torch.dtype) -> bool:
    """Whether crops of `size` x `size` px are kept as 8-bit pixels: their maps in `dtype` are large, or unused."""
    return spec.evaluation != "dense" or size**2 // spec.stride**2 * spec.bins * dtype.itemsize > LARGEST_MAP


def _stored(crops: Tensor, spec: HogSpec, keep: torch.dtype) -> torch.dtype:
    """uint8 where crops are kept, else the dtype of the maps."""
    return torch.uint8 if keeps_crops(spec, crops.shape[-1], keep) else keep


def _new_table(shape: tuple[int, ...], dtype: torch.dtype, place: BankPlace) -> Tensor:
    if place.folder is None or not math.prod(shape):
        return torch.empty(shape, dtype=dtype, device=place.device)
    size = math.prod(shape) * dtype.itemsize
    place.folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place.folder).free
    if size > free:  # writing to a mapped file on a full disk would end the process without a word
        raise OSError(f"{place.folder} must have room for {size / 1e9:.1f} GB of crops; {free / 1e9:.1f} GB are free")
    path = place.folder / f".crops-{uuid.uuid4().hex}.part"
    try:
        _reserve(path, size)
        return torch.from_file(str(path), shared=True, size=math.prod(shape), dtype=dtype).view(shape)
    finally:
        path.unlink(missing_ok=True)  # the mapping stays; nothing is left behind, however the run ends


def _reserve(path: Path, size: int) -> None:
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
