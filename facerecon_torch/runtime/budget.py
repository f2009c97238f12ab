"""How much memory a run may fill, and who gets which share of it."""

from dataclasses import dataclass
from pathlib import Path

import torch

from facerecon_torch.runtime.memory import free_bytes

__all__ = ["UNBOUNDED", "CacheLocation", "MemoryBudget", "memory_budget"]

_AUTO_SHARE = 0.6  # of what is free when the run begins; the rest is for the libraries and for everybody else
_GB = 10**9
_CACHE = _FEATURES = 4  # a quarter each: the crops; the features of the first stage; those of a later stage
_REGRESSION = 4
_GRAM = 8
_CHUNK = 64  # on a CPU more crops a chunk do not help
_CUDA_CHUNKS = (64, 1024)
_CUDA_CHUNK_SHARE = 32


@dataclass(frozen=True)
class CacheLocation:
    """The place of a feature cache: the memory of `device`, or a file below `folder`."""

    device: torch.device
    folder: Path | None = None

    def __str__(self) -> str:
        if self.folder is not None:
            return "in a file"
        return f"in the memory of {self.device.type}"


@dataclass(frozen=True)
class MemoryBudget:
    """Bytes for what grows with the samples: `device` where the work is done, `host` beside it (the same memory, and
    counted once, where the device is the CPU)."""

    device: float
    host: float = 0.0
    regression: int | None = None  # bytes for the matrices of a ridge; None: what is free when it is solved

    @property
    def features(self) -> float:
        """The largest matrix of features that is held; a larger one is read in chunks, again and again."""
        return self.device / _FEATURES

    @property
    def gram(self) -> float:
        """The largest Gram matrix that folds share."""
        return self.device / _GRAM

    def cache_location(self, size: int, device: torch.device, folder: Path) -> CacheLocation:
        """The fastest place with room for `size` bytes of crops or maps."""
        if size <= self.device / _CACHE:
            return CacheLocation(device)
        if size <= self.host / 2:
            return CacheLocation(torch.device("cpu"))
        return CacheLocation(torch.device("cpu"), folder)

    def chunk(self, bytes_per_sample: int, device: torch.device) -> int:
        """Samples described together."""
        if device.type == "cpu":
            return _CHUNK
        least, most = _CUDA_CHUNKS
        return int(min(max(self.device / _CUDA_CHUNK_SHARE / bytes_per_sample, least), most))


UNBOUNDED = MemoryBudget(float("inf"))


def memory_budget(memory: str | float | int, device: torch.device) -> MemoryBudget:
    """`auto`: 0.6 of what is free on the device, and beside a CUDA device 0.6 of the host's; a number: so many GB
    (10^9 bytes) of each."""
    room = [
        _AUTO_SHARE * free_bytes(d) if isinstance(memory, str) else memory * float(_GB)
        for d in (device, torch.device("cpu"))
    ]
    regression = None if isinstance(memory, str) else int(room[0] / _REGRESSION)
    return MemoryBudget(room[0], room[1] if device.type == "cuda" else 0.0, regression)
