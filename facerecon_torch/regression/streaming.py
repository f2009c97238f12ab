"""Feature matrices as a tensor in memory or as a source of row chunks that can be read again and again."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Features", "RowSource", "group_chunks", "peek_rows", "product_dtype_of", "row_chunks", "select_rows"]

RowSource: TypeAlias = Callable[[], Iterable[Tensor]]
Features: TypeAlias = Tensor | RowSource

# 2^24 numbers are 64 MiB of float32: large enough for full GEMM speed, small beside any X worth streaming.
CHUNK_NUMBERS = 2**24


def product_dtype_of(dtype: torch.dtype, wanted: torch.dtype | None = None) -> torch.dtype:
    """The dtype in which chunks are multiplied: `wanted`, else float64 for float64 and float32 for all others."""
    if wanted is not None:
        return wanted
    return torch.float64 if dtype == torch.float64 else torch.float32


def peek_rows(features: Features) -> Tensor:
    """The first chunk of `features`, for its width, dtype and device; a source is started and left again."""
    first = features if isinstance(features, Tensor) else next(iter(features()), None)
    if first is None:
        raise ValueError("features must hold at least one row; got none")
    _require_matrix(first)
    if not first.shape[0] or not first.shape[1]:
        raise ValueError(f"features must hold at least one row and one column; got {tuple(first.shape)}")
    return first[: _rows_for(first.shape[1])]


def row_chunks(features: Features, rows: int | None = None) -> Iterator[tuple[int, Tensor]]:
    """(index of the first row, rows) in order, in pieces of at most `rows` (default: about 64 MiB of float32).

    The chunks of a source may have any size; they are joined and cut. A tensor is cut into views, never copied.
    """
    start = 0
    for chunk in _rechunked(features, rows):
        yield start, chunk
        start += chunk.shape[0]


def _rechunked(features: Features, rows: int | None) -> Iterator[Tensor]:
    if isinstance(features, Tensor):
        _require_matrix(features)
        yield from torch.split(features, rows or _rows_for(features.shape[1]))
        return
    held: list[Tensor] = []
    count, width = 0, None
    for chunk in features():
        _require_matrix(chunk)
        width = chunk.shape[1] if width is None else width
        if chunk.shape[1] != width:
            raise ValueError(f"every chunk of features must have {width} columns; got {chunk.shape[1]}")
        size = rows or _rows_for(width)
        held, count = [*held, chunk], count + chunk.shape[0]
        if count < size:
            continue
        *full, rest = torch.split(torch.cat(held) if len(held) > 1 else chunk, size)
        yield from full
        held, count = [rest], rest.shape[0]
    if count:
        yield torch.cat(held) if len(held) > 1 else held[0]


def _rows_for(width: int) -> int:
    return min(max(CHUNK_NUMBERS // max(width, 1), 64), 2**16)


def _require_matrix(chunk: Tensor) -> None:
    if not isinstance(chunk, Tensor):
        raise TypeError(f"features must be tensors; got {type(chunk).__name__}")
    if chunk.ndim != 2 or not chunk.is_floating_point():
        raise ValueError(f"features must be a floating point matrix; got {chunk.dtype} {tuple(chunk.shape)}")


def select_rows(x: Float[Tensor, "n d"], rows: Int[Tensor, "m"]) -> RowSource:
    """A source of x[rows] that copies one chunk at a time: a fold of a large matrix without a copy of the matrix."""
    size = _rows_for(x.shape[1])
    return lambda: (x[part] for part in torch.split(rows, size))


def group_chunks(
    features: Features, index: Int[Tensor, "n"], counts: Int[Tensor, "groups"]
) -> Iterator[tuple[Int[Tensor, "m"], Float[Tensor, "m d"]]]:
    """(sample numbers, their rows), a few whole groups at a time; no group is ever cut.

    `index` numbers the group of each sample from 0, `counts` is the size of each group. Of a source, the rows of
    groups that are not complete yet are held: sort the samples by group to keep that small.
    """
    if isinstance(features, Tensor):
        order = torch.argsort(index, stable=True)
        ends = torch.cumsum(counts, 0).tolist()
        size, start = _rows_for(features.shape[1]), 0
        while start < len(order):
            last = bisect_right(ends, start + size) - 1
            end = ends[last] if last >= 0 and ends[last] > start else ends[last + 1]
            yield order[start:end], features[order[start:end]]
            start = end
        return
    yield from _whole_groups(features, index, counts)


def _whole_groups(
    source: RowSource, index: Int[Tensor, "n"], counts: Int[Tensor, "groups"]
) -> Iterator[tuple[Int[Tensor, "m"], Float[Tensor, "m d"]]]:
    missing = counts.clone()
    held_rows: Tensor | None = None
    held_numbers = index.new_empty(0)
    for start, chunk in row_chunks(source):
        numbers = torch.arange(start, start + chunk.shape[0], device=index.device)
        missing -= torch.bincount(index[numbers], minlength=len(counts))
        held_rows = chunk if held_rows is None else torch.cat([held_rows, chunk])
        held_numbers = torch.cat([held_numbers, numbers])
        ready = missing[index[held_numbers]] == 0
        if bool(ready.any()):
            yield held_numbers[ready], held_rows[ready]
            held_rows, held_numbers = held_rows[~ready], held_numbers[~ready]
