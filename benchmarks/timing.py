"""Timing for every benchmark: the same clock, the same row, the same file.

Cases of one measurement take turns, round by round, so that whatever else runs on the machine slows all of them; ratios
between them are then worth more than the times themselves.
"""

import json
import os
import platform
import re
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

__all__ = ["Row", "describe_machine", "measure", "measure_together", "write_results"]

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("torch", "kornia", "numpy", "scikit-image", "scikit-learn", "warp-lang")


@dataclass
class Row:
    """One case: milliseconds per item over the rounds, peak memory, and whatever error came with it."""

    name: str
    items: int
    median_ms: float = float("nan")
    low_ms: float = float("nan")  # fastest round
    spread_ms: float = float("nan")  # between the quartiles of the rounds
    rounds_ms: list[float] = field(default_factory=list)
    peak_mib: float = float("nan")  # GPU: allocated by the case; CPU: of the process so far
    error: dict[str, float] = field(default_factory=dict)  # of the answer, from the same run
    failure: str | None = None


def measure(name: str, case: Callable[[], Any], *, items: int, device: torch.device, rounds: int = 15) -> Row:
    """Time one case alone."""
    return measure_together({name: case}, items=items, device=device, rounds=rounds)[name]


def measure_together(
    cases: Mapping[str, Callable[[], Any]], *, items: int, device: torch.device, rounds: int = 15
) -> dict[str, Row]:
    """Time cases in turns. Each call of a case treats `items` items. A case that fails leaves a row that says how."""
    rows = {name: Row(name, items) for name in cases}
    for name, case in cases.items():
        _warm_up(rows[name], case, device)
    for _ in range(rounds):
        for name, case in cases.items():
            if rows[name].failure is None:
                rows[name].rounds_ms.append(_time(case, device) * 1e3 / items)
    for row in rows.values():
        if row.rounds_ms:
            low, row.median_ms, high = statistics.quantiles([*row.rounds_ms] * 2, n=4, method="inclusive")
            row.low_ms, row.spread_ms = min(row.rounds_ms), high - low
    return rows


def _warm_up(row: Row, case: Callable[[], Any], device: torch.device) -> None:
    try:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        for _ in range(3):
            case()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            row.peak_mib = torch.cuda.max_memory_allocated(device) / 2**20
        else:
            row.peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    except Exception as error:  # the row says what happened; the other cases go on
        row.failure = f"{type(error).__name__}: {error}"


def _time(case: Callable[[], Any], device: torch.device) -> float:
    start = time.perf_counter()
    case()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Hardware, versions, threads and how busy the machine is."""
    return {
        "cpu": _cpu_name(),
        "cpus": os.cpu_count(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "load_1min": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--", "facerecon_torch", "benchmarks/*.py")),
    }


def write_results(
    bench: str, rows: list[Row], *, device: torch.device, dtype: torch.dtype, settings: Mapping[str, Any]
) -> Path:
    """One JSON file per bench, machine, device and dtype; a later run replaces it."""
    machine = describe_machine(device)
    place = f"{machine['cpu']}-{machine['cpus']}cpu"
    parts = (bench, place, machine["device"], str(dtype).removeprefix("torch."))
    path = RESULTS / ("--".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts) + ".json")
    RESULTS.mkdir(exist_ok=True)
    content = {"bench": bench, "machine": machine, "settings": dict(settings), "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.is_file() else None
    return re.sub(r"\((R|TM)\)", "", found.group(1)).strip() if found else platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    answer = subprocess.run(["git", *arguments], cwd=RESULTS.parent.parent, capture_output=True, text=True)
    return answer.stdout.strip() if answer.returncode == 0 else None
