"""The part of report.json that describes a run apart from its results."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from facerecon_torch.runtime.timer import Timer

__all__ = ["environment", "package_version"]

_PACKAGES = ("facerecon-torch", "torch", "torchvision", "kornia", "numpy", "warp-lang", "dlib-bin", "face-alignment")


def package_version(package: str) -> str | None:
    """The version of an installed distribution; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout that the package runs from; None outside a checkout, or without git."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None
    except OSError:
        return None


def environment(device: torch.device, seed: int, timer: Timer) -> dict[str, Any]:
    """Command, commit, versions, device, seed, seconds and peak memory of a run.

    Args:
        device: of the run.
        seed: of the run.
        timer: has measured the parts of the run, with their memory.

    Returns:
        Plain values that go into JSON.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "command": ["facerecon", Path(sys.argv[0]).stem, *sys.argv[1:]],
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **{p: package_version(p) for p in _PACKAGES}},
        "device": {"type": device.type, "name": name, "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "seed": seed,
        "seconds": {k: round(v, 3) for k, v in timer.seconds.items()},
        "peak_memory_mb": {k: round(v, 1) for k, v in timer.peak_memory_mb.items()},
        "peak_device_memory_mb": {k: round(v, 1) for k, v in timer.peak_device_mb.items()},
    }
