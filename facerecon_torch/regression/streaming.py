"""Feature matrices as a tensor in memory or as a source of row chunks that can be read again and again."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.runtime.memory import free_bytes

__all__ = [
    "Features",
    "RowSource",
    "chunk_rows",
    "first_rows",
    "group_chunks",
    "peek_rows",
    "product_dtype_of",
    "row_chunks",
    "select_rows",
    "to_device",
]

RowSource: TypeAlias = Callable[[], Iterable[Tensor]]
Features: TypeAlias = Tensor | RowSource

# 2^24 numbers are 64 MiB of float32: large enough for full GEMM speed, small beside any X worth streaming.
CHUNK_NUMBERS = 2**24
# A GPU wants larger products: up to 2^26 numbers where its memory has room for 16 times as much.
CUDA_CHUNK_NUMBERS = 2**26
CUDA_CHUNK_SHARE = 16


def product_dtype_of(dtype: torch.dtype, wanted: torch.dtype | None = None) -> torch.dtype:
    """The dtype in which chunks are multiplied: `wanted`, else float64 for float64 and float32 for all others."""
    if wanted is not None:
        return wanted
    return torch.float64 if dtype == torch.float64 else torch.float32


def first_rows(features: Features) -> Tensor | None:
    """The first chunk of `features`, for its width, dtype and device; None where there are no rows. A source is
    started and left again."""
    for first in (features,) if isinstance(features, Tensor) else features():
        _require_matrix(first)
        if first.numel():
            return first[: chunk_rows(first.shape[1], first.device)]
    return None


def peek_rows(features: Features) -> Tensor:
    """`first_rows`; raises ValueError where there are none."""
    first = first_rows(features)
    if first is None:
        raise ValueError("features must hold at least one row; got none")
    return first


def row_chunks(
    features: Features, rows: int | None = None, device: torch.device | None = None
) -> Iterator[tuple[int, Tensor]]:
    """(index of the first row, rows) in order, in pieces of at most `rows` (default: about 64 MiB of float32, more on
    CUDA), brought to `device` if given.

    The chunks of a source may have any size; they are joined and cut. A tensor is cut into views, never copied.
    """
    start = 0
    for chunk in to_device(_rechunked(features, rows), device):
        yield start, chunk
        start += chunk.shape[0]


def to_device(chunks: Iterable[Tensor], device: torch.device | None) -> Iterator[Tensor]:
    """The chunks on `device`: from the host to CUDA by way of pinned memory, each copied while the one before it is
    still being worked on; a chunk that is there already is handed on as it is."""
    if device is None or device.type != "cuda":
        yield from (chunk if device is None else chunk.to(device) for chunk in chunks)
        return
    copies = _copy_stream(device)
    ahead: tuple[Tensor, torch.cuda.Event | None] | None = None
    for chunk in chunks:
        arriving = _start_copy(chunk, device, copies)
        if ahead is not None:
            yield _arrived(*ahead)
        ahead = arriving
    if ahead is not None:
        yield _arrived(*ahead)


@cache
def _copy_stream(device: torch.device) -> "torch.cuda.Stream":
    """One for all passes: memory that was freed on a stream serves that stream alone."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call,no-any-return]


def _start_copy(
    chunk: Tensor, device: torch.device, copies: "torch.cuda.Stream"
) -> tuple[Tensor, "torch.cuda.Event | None"]:
    if chunk.device.type != "cpu":
        return chunk.to(device), None
    with torch.cuda.stream(copies):
        moved = chunk.pin_memory().to(device, non_blocking=True)
        return moved, copies.record_event()


def _arrived(chunk: Tensor, copied: "torch.cuda.Event | None") -> Tensor:
    if copied is not None:
        working = torch.cuda.current_stream(chunk.device)
        working.wait_event(copied)
        chunk.record_stream(working)  # its memory was taken on the stream of the copies
    return chunk


def _rechunked(features: Features, rows: int | None) -> Iterator[Tensor]:
    if isinstance(features, Tensor):
        _require_matrix(features)
        if features.numel():
            yield from torch.split(features, rows or chunk_rows(features.shape[1], features.device))
        return
    width: int | None = None
    joined: Tensor | None = None
    filled = 0
    for chunk in features():
        _require_matrix(chunk)
        width = chunk.shape[1] if width is None else width
        if chunk.shape[1] != width:
            raise ValueError(f"every chunk of features must have {width} columns; got {chunk.shape[1]}")
        size = rows or chunk_rows(width, chunk.device)
        while len(chunk):
            if joined is None and len(chunk) >= size:
                yield chunk[:size]
                chunk = chunk[size:]
                continue
            joined = chunk.new_empty(size, width) if joined is None else joined
            part = chunk[: size - filled]
            joined[filled : filled + len(part)] = part
            filled, chunk = filled + len(part), chunk[len(part) :]
            if filled == size:
                whole, joined, filled = joined, None, 0
                yield whole
                del whole  # not held while the next one fills
    if joined is not None:
        yield joined[:filled]


def chunk_rows(width: int, device: torch.device) -> int:
    """Rows of a chunk: 64 MiB of float32, on CUDA more where there is room; at least 64."""
    numbers = CHUNK_NUMBERS
    if device.type == "cuda":
        numbers = min(max(free_bytes(device) // (4 * CUDA_CHUNK_SHARE), CHUNK_NUMBERS), CUDA_CHUNK_NUMBERS)
    return min(max(numbers // max(width, 1), 64), 2**16)


def _require_matrix(chunk: Tensor) -> None:
    if not isinstance(chunk, Tensor):
        raise TypeError(f"features must be tensors; got {type(chunk).__name__}")
    if chunk.ndim != 2 or not chunk.is_floating_point():
        raise ValueError(f"features must be a floating point matrix; got {chunk.dtype} {tuple(chunk.shape)}")


def select_rows(x: Float[Tensor, "n d"], rows: Int[Tensor, "m"]) -> RowSource:
    """A source of x[rows] that copies one chunk at a time: a fold of a large matrix without a copy of the matrix."""
    size = chunk_rows(x.shape[1], x.device)
    return lambda: (x[part] for part in torch.split(rows, size))


def group_chunks(
    features: Features, index: Int[Tensor, "n"], counts: Int[Tensor, "groups"], rows: int | None = None
) -> Iterator[tuple[Int[Tensor, "m"], Float[Tensor, "m d"]]]:
    """(sample numbers, their rows), a few whole groups at a time; no group is ever cut.

    `index`, on the device of the work, numbers the group of each sample from 0, `counts` is the size of each group;
    chunks have about `rows` rows. Of a source, the rows of groups that are not complete yet are held: sort the samples
    by group to keep that small.
    """
    if isinstance(features, Tensor):
        order = torch.argsort(index, stable=True)
        parts = _cuts(torch.cumsum(counts, 0).tolist(), rows or chunk_rows(features.shape[1], index.device))
        samples = [order[part] for part in parts]
        picked = (features[part.to(features.device)] for part in samples)
        yield from zip(samples, to_device(picked, index.device))
        return
    yield from _whole_groups(features, index, counts, rows)


def _cuts(ends: list[int], size: int) -> list[slice]:
    """Runs of whole groups of at most `size` samples, or of one group; `ends` says where each group ends."""
    cuts: list[slice] = []
    start = 0
    while ends and start < ends[-1]:
        last = bisect_right(ends, start + size) - 1
        end = ends[last] if last >= 0 and ends[last] > start else ends[last + 1]
        cuts.append(slice(start, end))
        start = end
    return cuts


def _whole_groups(
    source: RowSource, index: Int[Tensor, "n"], counts: Int[Tensor, "groups"], rows: int | None
) -> Iterator[tuple[Int[Tensor, "m"], Float[Tensor, "m d"]]]:
    missing = counts.clone()
    held_rows: Tensor | None = None
    held_numbers = index.new_empty(0)
    for start, chunk in row_chunks(source, rows, index.device):
        numbers = torch.arange(start, start + chunk.shape[0], device=index.device)
        missing -= torch.bincount(index[numbers], minlength=len(counts))
        found = chunk if held_rows is None or not len(held_rows) else torch.cat([held_rows, chunk])
        held_numbers = torch.cat([held_numbers, numbers])
        ready = missing[index[held_numbers]] == 0
        count = int(ready.sum())
        if bool(ready[:count].all()):  # as where samples are sorted by group: nothing to pick, views will do
            whole, held_rows = found[:count], found[count:].clone()
        else:
            whole, held_rows = found[ready], found[~ready]
        whole_numbers, held_numbers = held_numbers[ready], held_numbers[~ready]
        del found
        if count:
            yield whole_numbers, whole
        del whole
