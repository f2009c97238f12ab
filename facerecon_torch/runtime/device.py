"""The device that a run asks for, and chunks of tensors that travel to it while the chunk before is in use."""

from collections.abc import Iterable, Iterator
from functools import cache

import torch
from torch import Tensor

__all__ = ["require_device", "to_device"]


def require_device(name: str) -> torch.device:
    """The device of that name. CUDA is never silently replaced by the CPU, and MPS is refused.

    Raises ValueError where the device is unknown, unsupported or not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"runtime.device must be auto, cpu, cuda or cuda:N; got {name!r}") from None
    if device.type == "mps":
        raise ValueError("runtime.device=mps is not supported: float64 solves are missing there; use cpu")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"runtime.device must be auto, cpu, cuda or cuda:N; got {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"runtime.device={name} was asked for, but torch sees no CUDA device; use runtime.device=cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"runtime.device={name} was asked for, but there are {torch.cuda.device_count()} CUDA devices")
    return device


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
