"""How much memory is free, and what to do when there was less: work in halves."""

import logging
import math
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import psutil
import torch

__all__ = ["free_bytes", "halve_on_out_of_memory", "is_out_of_memory"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_CONTROL_GROUP = Path("/sys/fs/cgroup")


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
    """What a control group (version 2) leaves; infinite where there is no limit."""
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
