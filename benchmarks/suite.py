"""The command `facerecon bench`: reads its words, runs benches on devices, prints, writes and judges."""

import importlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from facerecon_torch.commands.suggest import did_you_mean
from facerecon_torch.files import require_writable

from . import guard
from .case import Context, Row
from .ceilings import measure_ceilings
from .plots import MISSING, draw_scaling
from .results import default_folder, describe_machine, write_results
from .table import ceiling_lines, table
from .timing import measure_group, missing_package

__all__ = ["NAMES", "Request", "main", "parse"]

NAMES = ("model", "fit", "hog", "ridge", "stage", "cascade", "infer", "register", "agree")
SIZES = ("tiny", "quick", "small", "full")
_QUICK_S = 3.0
_CHOICES = {"dtype": ("float32", "float64"), "sizes": SIZES, "guard": ("off", "check", "record")}


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    names: tuple[str, ...] = NAMES
    devices: tuple[str, ...] = ("cpu",)
    dtype: str = "float32"
    sizes: str = "small"
    rounds: int = 9
    threads: int | None = None
    minutes: float | None = None
    output: Path | None = field(default_factory=default_folder)
    plots: bool = True
    guard: str = "off"
    guard_file: Path | None = None
    guard_runs: int = 5
    overrides: dict[str, Any] = field(default_factory=dict)

    @property
    def record_path(self) -> Path:
        return self.guard_file or Path(__file__).resolve().parent / "results" / "guard.json"


def bench_module(name: str) -> ModuleType:
    return importlib.import_module(f".speed.bench_{name}", __package__)


def parse(words: Sequence[str]) -> Request:
    """The request that the arguments describe. Raises ValueError for an unknown bench, key or value."""
    names = [word for word in words if "=" not in word]
    if unknown := [name for name in names if name not in NAMES]:
        hint = did_you_mean(unknown[0], NAMES, f"benches are {', '.join(NAMES)}")
        raise ValueError(f"unknown bench {unknown[0]!r}; {hint}")
    pairs = [word.partition("=")[::2] for word in words if "=" in word]
    settings = {_FIELDS.get(key, key): _read(key, value) for key, value in pairs if key in _READERS}
    request = Request(names=tuple(dict.fromkeys(names)) or NAMES, **settings)
    sizes = {key for name in request.names for key in bench_module(name).SIZES[request.sizes]}
    keys = sorted({*_READERS, *sizes})
    if wrong := [key for key, _ in pairs if key not in keys]:
        hint = did_you_mean(wrong[0], keys, f"keys are {', '.join(keys)}")
        raise ValueError(f"unknown key {wrong[0]!r}; {hint}")
    overrides = {key: _number_or_list(key, value) for key, value in pairs if key not in _READERS}
    return replace(request, overrides=overrides)


def _read(key: str, value: str) -> Any:
    if key in _CHOICES and value not in _CHOICES[key]:
        raise ValueError(f"{key} must be one of {', '.join(_CHOICES[key])}; got {value!r}")
    try:
        return _READERS[key](value)
    except ValueError as error:
        raise ValueError(f"{key}={value}: {error}") from None


def _count(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise ValueError("expected a whole number of at least 1")
    return int(value)


def _minutes(value: str) -> float:
    minutes = float(value)
    if not minutes > 0:
        raise ValueError("expected a positive number")
    return minutes


def _devices(value: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(value.split(",")))
    if not all(name.partition(":")[0] in ("cpu", "cuda") for name in names):
        raise ValueError("expected cpu, cuda or cpu,cuda")
    return names


def _flag(value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError("expected true or false")
    return value == "true"


_READERS: dict[str, Any] = {
    "device": _devices, "dtype": str, "sizes": str, "rounds": _count, "threads": _count, "minutes": _minutes,
    "output": lambda value: None if value == "none" else Path(value), "plots": _flag, "guard": str, "guard_file": Path,
    "guard_runs": _count,
}  # fmt: skip


_FIELDS = {"device": "devices"}  # of `Request`, where the key has another name


def _number_or_list(key: str, value: str) -> Any:
    try:
        numbers = [float(v) if "." in v or "e" in v else int(v) for v in value.split(",")]
    except ValueError:
        raise ValueError(f"{key}={value}: expected a number, or several with commas between them") from None
    return numbers if len(numbers) > 1 else numbers[0]


def main(arguments: Sequence[str]) -> int:
    """Run what the words ask for and return the exit status."""
    try:
        request = parse(arguments)
        if request.output is not None:
            require_writable(request.output, name="output folder", remedy="give output=FOLDER, or output=none")
    except (ValueError, OSError) as error:
        sys.stderr.write(f"facerecon bench: {error}\n")
        return 2
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the rivals' processes, which start afresh
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic products, where `agree` asks for them
    runs = request.guard_runs if request.guard == "record" else 1
    faults, found = 0, list[dict[str, float]]()
    for _ in range(runs):
        run = Run(request)
        run.measure()
        faults += run.faults
        found.append(run.ratios)
    return max(min(faults, 1), _judge(request, found))


def _judge(request: Request, found: list[dict[str, float]]) -> int:
    if request.guard == "off":
        return 0
    machine = describe_machine(torch.device("cpu"))
    if request.guard == "record":
        guard.record(request.record_path, found, machine)
        _say(f"recorded: {request.record_path}")
        return 0
    try:
        answer = guard.compare(request.record_path, found[0], machine)
        if answer.failed:
            answer = guard.compare(request.record_path, _again(request, found[0], answer.fell), machine)
    except (FileNotFoundError, ValueError) as error:
        sys.stderr.write(f"facerecon bench: {error}\n")
        return 2
    _say("\n".join(answer.lines()))
    return int(answer.failed)


def _again(request: Request, first: dict[str, float], fell: Sequence[str]) -> dict[str, float]:
    """The better of two runs of every ratio: a fall that a second look does not see was somebody else's load."""
    names = tuple(name for name in request.names if any(line.startswith(f"{name} on ") for line in fell))
    _say(f"\n{len(fell)} ratios fell; a second look at {', '.join(names)}:")
    run = Run(replace(request, names=names or request.names))
    run.measure()
    return {name: max(first.get(name, 0.0), run.ratios.get(name, 0.0)) for name in first | run.ratios}


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Run:
    """One pass over all benches and devices of a request."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.faults = 0
        self.ratios: dict[str, float] = {}
        self._deadline = None if request.minutes is None else time.monotonic() + 60 * request.minutes
        self._rows: dict[str, dict[str, list[Row]]] = {name: {} for name in request.names}

    def measure(self) -> None:
        """CUDA first: under `minutes`, the CPU's long cases must not take its time."""
        for device in sorted(map(torch.device, self.request.devices), key=lambda d: d.type == "cpu"):
            if device.type == "cuda" and not torch.cuda.is_available():
                _say("CUDA: not measured (torch sees no CUDA device)")
                continue
            self._measure_on(device)
        for name, rows in self._rows.items():
            _say("\n" + table(name, bench_module(name).TITLE, rows))
            self._draw(name, rows)
        _say("\n* peak memory of a fresh process, above what stood before the case; the others: of this process")

    def _measure_on(self, device: torch.device) -> None:
        request = self.request
        dtype = getattr(torch, request.dtype)
        ceilings = measure_ceilings(device, dtype, quick=request.sizes in ("tiny", "quick"))
        _say(ceiling_lines(ceilings))
        machine = describe_machine(device)
        for name in request.names:
            began = time.monotonic()
            sizes = {**bench_module(name).SIZES[request.sizes]}
            sizes |= {k: v for k, v in request.overrides.items() if k in sizes}
            rate = ceilings["product_gflop_s"][request.dtype]
            longest_s = _QUICK_S if request.sizes == "quick" else float("inf")
            told = (device, dtype, sizes, torch.get_num_threads(), request.rounds, rate, self._deadline, longest_s)
            context = Context(*told)
            rows = list(_rows_of(name, context, ceilings))
            self._rows[name][device.type] = rows
            self.faults += sum(row.failure is not None for row in rows)
            self.ratios |= guard.ratios(f"{name} on {device.type}", rows)
            settings = {"dtype": request.dtype, "sizes": request.sizes, "rounds": request.rounds, **sizes}
            told = ""
            if request.output is not None:
                path = write_results(request.output, name, rows, machine=machine, ceilings=ceilings, settings=settings)
                told = f", written: {path}"
            _say(f"{name} on {device.type}: {len(rows)} rows in {time.monotonic() - began:.1f} s{told}")

    def _draw(self, name: str, rows: dict[str, list[Row]]) -> None:
        if not self.request.plots or self.request.output is None:
            return
        try:
            for path in draw_scaling(self.request.output, name, rows):
                _say(f"drawn: {path}")
        except ImportError:
            _say(MISSING)


def _rows_of(name: str, context: Context, ceilings: dict[str, Any]) -> Iterator[Row]:
    """All rows of a bench; one that can't even be built is a row that says so."""
    groups = bench_module(name).groups(context)
    while True:
        try:
            group = next(groups)
        except StopIteration:
            return
        except ModuleNotFoundError as error:
            reason = missing_package(error)
            failure = None if reason else f"{type(error).__name__}: {error}"
            yield replace(Row(name, "building the next group"), skipped=reason, failure=failure)
            return
        except Exception as error:  # the other benches go on
            yield replace(Row(name, "building the next group"), failure=f"{type(error).__name__}: {error}")
            return
        yield from measure_group(group, context, ceilings=ceilings)
