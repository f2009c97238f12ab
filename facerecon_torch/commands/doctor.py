"""`facerecon doctor`: packages, GPU and driver, folders that are written, landmark detectors and their weights."""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from facerecon_torch.errors import DetectorError, FolderError
from facerecon_torch.files import cache_folder, require_writable
from facerecon_torch.landmarks.registry import DETECTORS, detector_options, find_detector
from facerecon_torch.runtime.environment import package_version

__all__ = ["examine", "report_text", "run_doctor"]

_REQUIRED = (
    *("torch", "torchvision", "kornia", "numpy", "scipy", "pillow", "warp-lang", "hydra-core"),
    *("omegaconf", "jaxtyping", "safetensors", "pyarrow", "tqdm", "filelock", "platformdirs", "psutil"),
)
_OPTIONAL = (
    *("dlib-bin", "face-recognition-models", "face-alignment", "pytorch3d", "ray", "scikit-image", "trimesh", "viser"),
    *("pytest", "beartype"),
)


def run_doctor(arguments: Sequence[str]) -> int:
    """The status of `facerecon doctor`: 1 if something keeps the package from working, else 0."""
    parser = argparse.ArgumentParser(prog="facerecon doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="look for weights without loading them")
    options = parser.parse_args(arguments)
    facts = examine(run_detectors=not options.quick)
    sys.stdout.write((json.dumps(facts, indent=2) if options.json else report_text(facts)) + "\n")
    return 1 if facts["problems"] else 0


def examine(*, run_detectors: bool = True) -> dict[str, Any]:
    """The state of the installation, as plain values that go into JSON.

    Args:
        run_detectors: load the detectors and search an empty image; False: only look for their files.

    Returns:
        Versions, GPU, folders, detectors, and `problems`: what keeps the package from working, each with its remedy. A
        missing GPU or optional package is no problem.

    Example:
        >>> examine(run_detectors=False)["problems"]
        []
    """
    packages = {name: package_version(name) for name in _REQUIRED}
    problems = [f"{name} is not installed: pip install {name}" for name, version in packages.items() if version is None]
    gpu, vision, folders = _gpu(), _torchvision(), _folders()
    problems += [p for p in (gpu["problem"], vision, *(f["problem"] for f in folders.values())) if p is not None]
    detectors = {name: _detector(name, run_detectors) for name in DETECTORS if name != "auto"}
    if not any(facts["works"] for name, facts in detectors.items() if name != "file"):
        problems.append("no landmark detector works; see detectors")
    return {
        "facerecon_torch": package_version("facerecon-torch"),
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "packages": packages,
        "optional_packages": {name: package_version(name) for name in _OPTIONAL},
        "gpu": gpu,
        "folders": folders,
        "detectors": detectors,
        "problems": problems,
    }


def report_text(facts: dict[str, Any]) -> str:
    """The facts of `examine` as lines of text."""
    gpu = facts["gpu"]
    lines = [
        f"facerecon-torch {facts['facerecon_torch'] or '(not installed, run from its folder)'}",
        f"python {facts['python']} at {facts['executable']}",
        f"{facts['platform']}, {facts['cpus']} CPUs, {facts['memory_gib']} GiB",
        "",
        "packages: " + ", ".join(f"{name} {version or 'MISSING'}" for name, version in facts["packages"].items()),
        "optional: " + ", ".join(f"{name} {version or '-'}" for name, version in facts["optional_packages"].items()),
        "",
        f"CUDA: {'works' if gpu['works'] else 'not used'}; torch built for {gpu['torch_cuda'] or 'the CPU only'}, "
        f"driver {gpu['driver'] or 'not found'}",
        *(
            f"  {d['index']}: {d['name']}, {d['memory_gib']} GiB, compute capability {d['capability']}"
            for d in gpu["devices"]
        ),
        "",
        "folders:",
        *(
            f"  {name} {about['path']}: {about['problem'] or format(about['free_gb'], '.1f') + ' GB free'}"
            for name, about in facts["folders"].items()
        ),
        "",
        "landmark detectors:",
    ]
    for name, detector in facts["detectors"].items():
        lines.append(f"  {name}: {'works' if detector['works'] else detector['problem']}")
        lines += [f"    weights {w['file']}: {_size_text(w)}" for w in detector["weights"]]
        lines.append(f"    licence: {detector['licence']}")
    lines += ["", *(f"PROBLEM: {p}" for p in facts["problems"])] if facts["problems"] else ["", "no problems found"]
    return "\n".join(lines)


def _size_text(weights: dict[str, Any]) -> str:
    return "missing" if weights["bytes"] is None else f"{weights['bytes'] / 1e6:.1f} MB"


def _gpu() -> dict[str, Any]:
    """The CUDA devices; `problem` says why torch cannot compute on a device or with a driver that is there."""
    driver = _driver()
    facts: dict[str, Any] = {
        "torch_cuda": torch.version.cuda,
        "driver": driver,
        "works": False,
        "devices": [],
        "problem": None,
    }
    if not torch.cuda.is_available():
        if driver is not None:
            facts["problem"] = (
                f"an NVIDIA driver ({driver}) is there, but torch {torch.__version__} finds no CUDA device: install a "
                "CUDA build of torch that this driver supports"
            )
        return facts
    try:
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            facts["devices"].append(
                {
                    "index": index,
                    "name": about.name,
                    "memory_gib": round(about.total_memory / 2**30, 1),
                    "capability": f"{about.major}.{about.minor}",
                }
            )
            ones = torch.ones(16, 16, device=f"cuda:{index}")
            facts["works"] = float((ones @ ones).sum()) == 16**3
    except RuntimeError as error:
        facts["works"] = False
        facts["problem"] = f"CUDA device {index} cannot compute: {error}"
    return facts


def _folders() -> dict[str, dict[str, Any]]:
    """The folders that commands write to unasked, each with the free space, or why it cannot be written."""
    return {"cache": _folder(cache_folder()), "temporary": _folder(Path(tempfile.gettempdir()))}


def _folder(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {"path": str(path), "free_gb": None, "problem": None}
    try:
        require_writable(path)
        facts["free_gb"] = round(shutil.disk_usage(path).free / 1e9, 1)
    except FolderError as error:
        facts["problem"] = str(error)
    return facts


def _driver() -> str | None:
    """The version of the NVIDIA driver by nvidia-smi; None if there is none."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    query = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return answer[0] if answer else None


def _torchvision() -> str | None:
    """Why torchvision does not work, if so: beside a CPU-only torch its compiled operators may be missing."""
    try:
        from torchvision.ops import nms  # type: ignore[import-untyped]

        nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    except (ImportError, RuntimeError) as error:
        return f"torchvision does not work with this torch ({error}): install both from the same CUDA or PyPI index"
    return None


def _detector(name: str, run: bool) -> dict[str, Any]:
    """The state of one detector: works, problem, weights, licence. `run` loads it and searches an empty image."""
    builder: Any = find_detector(name)
    options = {"download": False} if "download" in detector_options(name) else {}
    facts: dict[str, Any] = {"works": True, "problem": None, "weights": [], "licence": builder.licence}
    try:
        facts["weights"] = [_weights(file) for file in builder.weight_files()]
        detector = builder(**options)
        if run and name != "file":
            detector.detect([torch.zeros(3, 64, 64)])
    except DetectorError as error:
        facts |= {"works": False, "problem": str(error)}
    return facts


def _weights(file: Path) -> dict[str, Any]:
    return {"file": str(file), "bytes": file.stat().st_size if file.is_file() else None}
