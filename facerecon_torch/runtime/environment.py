"""report.json of a run: counts, stages, errors, seconds, memory, versions, device, seed and command."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from facerecon_torch.runtime.phases import Phases

__all__ = ["REPORT_FORMAT", "environment"]

REPORT_FORMAT = 1
_PACKAGES = (
    "facerecon-torch",
    "torch",
    "torchvision",
    "kornia",
    "numpy",
    "warp-lang",
    "dlib-bin",
    "face-alignment",
)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
    except OSError:  # no git on this machine
        return None
    return answer.stdout.strip() or None


def environment(device: torch.device, seed: int, phases: Phases) -> dict[str, Any]:
    """Everything about a run that is not a result."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "command": ["facerecon", Path(sys.argv[0]).stem, *sys.argv[1:]],
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in _PACKAGES}},
        "device": {
            "type": device.type,
            "name": name,
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
        "seed": seed,
        "seconds": {k: round(v, 3) for k, v in phases.seconds.items()},
        "peak_memory_mb": {k: round(v, 1) for k, v in phases.peak_memory_mb.items()},
        "peak_device_memory_mb": {k: round(v, 1) for k, v in phases.peak_device_mb.items()},
    }
