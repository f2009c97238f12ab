"""Chunks of tensors that travel to the device of the work while the chunk before is in use."""

from collections.abc import Iterable, Iterator
from functools import cache

import torch
from torch import Tensor

__all__ = ["to_device"]


def to_device(chunks: Iterable[Tensor], device: torch.device | None) -> Iterator[Tensor]:
    """The chunks on `device`. From the host to CUDA they pass through pinned memory, and the next chunk is copied while
    this one is in use."""
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
    """One stream for all passes: memory that was freed on a stream serves that stream alone."""
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
