"""Peak resident memory of one case, in this process or alone in a fresh one."""

import contextlib
import ctypes
import gc
import json
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

__all__ = ["PeakMeter", "process_peak_gb", "run_alone"]

_MIB = 2**20
HERE = "this process, above what stood before"
FRESH = "a fresh process, above what stood before the case"


class PeakMeter:
    """Resident memory above what stood when it was started. Linux counts the peak anew for each case; elsewhere the
    peak is that of the process so far. Figures that are claimed come from a fresh process."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        _return_freed_pages()
        _forget_peak()
        self.base_mib = _status("VmRSS")
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.base_mib = torch.cuda.memory_allocated(device) / _MIB

    def peak_mib(self) -> float:
        """Above `base_mib`; on CUDA what the device's allocator gave out."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            return torch.cuda.max_memory_allocated(self._device) / _MIB - self.base_mib
        return max(0.0, _status("VmHWM") - self.base_mib)

    def host_peak_mib(self) -> float:
        """Of the whole process."""
        return _status("VmHWM")


def process_peak_gb() -> float:
    """The largest resident size of this process, all of it, since the last meter was started; 10^9 bytes."""
    return _status("VmHWM") * _MIB / 1e9


def _return_freed_pages() -> None:
    """What earlier cases freed goes back to the system, so that this case's use of it counts."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: sets VmHWM back to VmRSS


def _status(name: str) -> float:
    """MiB. ru_maxrss counts what the parent held before a fork, so it is the last resort."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (_MIB if sys.platform == "darwin" else 1024)
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(name + ":"))


def run_alone(task: Mapping[str, Any], *, timeout_s: float | None) -> dict[str, Any]:
    """The row of a task that a fresh process runs (`alone.py`). Raises RuntimeError with its last words where it
    fails, subprocess.TimeoutExpired where it takes longer."""
    package = __name__.rpartition(".")[0]
    start = f"import sys; sys.path[:0] = {sys.path!r}; from {package}.alone import main; main()"
    answer = subprocess.run(
        [sys.executable, "-c", start],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if answer.returncode:
        words = answer.stderr.strip().splitlines() or [f"it left with status {answer.returncode}"]
        raise RuntimeError(words[-1])
    row: dict[str, Any] = json.loads(answer.stdout.strip().splitlines()[-1])
    return row
