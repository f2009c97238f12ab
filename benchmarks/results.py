"""Result files: one JSON per bench, machine, device, dtype and size; and what is known of the machine."""

import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .case import Row, slug

__all__ = ["default_folder", "describe_machine", "write_results"]

FORMAT = "facerecon-bench/2"
_HERE = Path(__file__).resolve().parent
_PACKAGES = (
    *("torch", "torchvision", "numpy", "warp-lang", "kornia", "triton", "scikit-image", "scikit-learn"),
    *("opencv-python", "dlib-bin", "facerecon-torch"),
)


def in_checkout() -> bool:
    """Whether this is the repository and not an installed wheel."""
    return (_HERE.parent / "pyproject.toml").is_file()


def default_folder() -> Path:
    """benchmarks/results of a checkout; ./benchmarks_results beside an installed wheel."""
    return _HERE / "results" if in_checkout() else Path.cwd() / "benchmarks_results"


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Hardware, versions, threads and how busy the machine is."""
    return {
        "cpu": _cpu_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cpus": os.cpu_count(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "driver": _driver() if device.type == "cuda" else None,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
        "load_1min": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "uncommitted_changes": _changed(),
    }


def write_results(
    folder: Path,
    bench: str,
    rows: Sequence[Row],
    *,
    machine: Mapping[str, Any],
    ceilings: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Path:
    """Write the file of one bench on one device; a later run of the same sizes replaces it."""
    parts = [bench, f"{machine['cpu']}-{machine['cpus']}cpu", machine["device"], settings["dtype"]]
    parts += [] if settings["sizes"] == "full" else [settings["sizes"]]
    path = folder / ("--".join(slug(str(part)) for part in parts) + ".json")
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "format": FORMAT,
        "bench": bench,
        "machine": dict(machine),
        "ceilings": dict(ceilings),
        "settings": dict(settings),
        "rows": [asdict(row) for row in rows],
    }
    path.write_text(json.dumps(_finite(content), indent=1) + "\n", encoding="utf-8")
    return path


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: they are written as words."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, (list, tuple)) else value


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.is_file() else None
    return re.sub(r"\((R|TM)\)", "", found.group(1)).strip() if found else platform.machine()


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.split("\n")[0].strip() or None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _changed() -> bool | None:
    found = _git("status", "--porcelain", "--", "facerecon_torch", "configs", "benchmarks/*.py")
    return None if found is None else bool(found)


def _git(*arguments: str) -> str | None:
    if not in_checkout():
        return None
    try:
        answer = subprocess.run(["git", *arguments], cwd=_HERE.parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()
