"""One reader on mutated files: how many were refused or read, and the faults."""

import signal
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from facerecon_torch.errors import FaceReconError
from tests.fuzz.mutate import mutations
from tests.fuzz.readers import READERS, tensors

SECONDS = 5.0  # for one input


class Hang(BaseException):
    """A reader did not come back; no reader catches it."""


def fuzz(name: str, folder: Path, count: int, seed: int, *, alarm: bool = False) -> dict[str, Any]:
    """The counts of `refused` and `read` inputs, the longest time in seconds, and the first few `faults`.

    `alarm` interrupts a reader after SECONDS; it takes this process's timer.
    """
    path, read = READERS[name](folder)
    content = path.read_bytes()
    read()
    counts, faults, longest = Counter[str](), [], 0.0
    for number, changed in enumerate(mutations(content, seed, count)):
        path.write_bytes(changed)
        start = time.monotonic()
        try:
            if alarm:
                signal.setitimer(signal.ITIMER_REAL, SECONDS)
            kind, reason = _outcome(read)
        finally:
            if alarm:
                signal.setitimer(signal.ITIMER_REAL, 0)
        taken = time.monotonic() - start
        if reason is None and taken > SECONDS:
            kind, reason = "fault", f"took {taken:.1f} s"
        longest = max(longest, taken)
        counts[kind] += 1
        if reason is not None and len(faults) < 5:
            faults.append({"number": number, "reason": reason, "bytes": changed[:400].hex()})
    return {"reader": name, "seed": seed, "inputs": count, **counts, "longest": round(longest, 2), "faults": faults}


def _outcome(read: Any) -> tuple[str, str | None]:
    """`refused` or `read`, or `fault` and the reason."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = read()
    except FaceReconError as error:
        return ("fault", "an allocation failed") if _ran_out_of_memory(error) else ("refused", None)
    except (Exception, Hang) as error:
        return "fault", f"{type(error).__name__}: {error}"[:300]
    if not all(bool(torch.isfinite(values).all()) for values in tensors(value)):
        return "fault", "NaN or infinity was handed on"
    return "read", None


def _ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether an allocation failed anywhere behind an error."""
    while error is not None:
        if isinstance(error, MemoryError) or "alloc" in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False
