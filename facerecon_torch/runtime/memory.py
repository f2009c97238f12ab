"""Free memory, what a run may fill of it and with what, and the answer to too little of it: work in halves."""

import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import psutil
import torch

__all__ = [
    "UNBOUNDED",
    "CacheLocation",
    "MemoryBudget",
    "free_bytes",
    "halve_on_out_of_memory",
    "is_out_of_memory",
    "memory_budget",
]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_CONTROL_GROUP = Path("/sys/fs/cgroup")
_AUTO_SHARE = 0.6  # of what is free when the run begins; the rest is for the libraries and for everybody else
_GB = 10**9
_CACHE = _FEATURES = 4  # a quarter each: the crops; the features of the first stage; those of a later stage
_REGRESSION = 4
_GRAM = 8
_CHUNK = 64  # on a CPU more crops a chunk do not help
_CUDA_CHUNKS = (64, 1024)
_CUDA_CHUNK_SHARE = 32


def free_bytes(device: torch.device) -> int:
    """Bytes that this process may count on for new tensors on `device`: on CUDA the driver's free memory and what torch
    holds unused; on the CPU what the machine, or the container, has free, shared with the processes that torchrun
    started beside this one."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + unused)
    available = min(psutil.virtual_memory().available, _container_bytes())
    return int(available) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _container_bytes() -> float | int:
    """The memory that a control group (version 2) leaves, bytes; infinite where there is no limit."""
    try:
        limit = (_CONTROL_GROUP / "memory.max").read_text().strip()
        used = int((_CONTROL_GROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return math.inf
    return math.inf if limit == "max" else max(int(limit) - used, 0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on CUDA or on the CPU."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    # torch's CPU allocator has no exception of its own
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)


def halve_on_out_of_memory(work: Callable[[slice], _T], rows: range, size: int) -> list[_T]:
    """[work(rows a:b), ...] in pieces of at most `size` rows; a piece that runs out of memory is done in halves, and so
    are all later ones; the log says so once per process.

    `work` must leave nothing half done where it raises. What even one row cannot have is raised.
    """
    answers: list[_T] = []
    start, size = rows.start, max(1, size)
    while start < rows.stop:
        part = slice(start, min(start + size, rows.stop))
        try:
            answers.append(work(part))
        except (MemoryError, RuntimeError) as error:
            length = part.stop - part.start
            if not is_out_of_memory(error) or length == 1:
                raise
            size = length // 2
        else:
            start = part.stop
            continue
        # After the except block: the error's traceback no longer holds the tensors of the failed attempt.
        _say_once()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return answers


@lru_cache(maxsize=1)
def _say_once() -> None:
    _log.warning("memory ran out: going on with smaller chunks")


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
