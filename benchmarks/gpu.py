"""Everything that a machine with a CUDA device should be asked, in one command of at most nine minutes: `make gpu`.

The CUDA cases of the tests, CPU = CUDA agreement, and the benches in the sizes of the table of docs/performance.md,
each in a process of its own with a time limit. Nothing is installed: what needs a missing package is skipped and named.
Without a CUDA device the command says so and exits with status 0; a failed test, step or bench row makes it 1.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

__all__ = ["BUDGET_S", "REQUIRED", "STEPS", "Outcome", "Step", "main", "missing_packages", "read_tests", "summary"]

ROOT = Path(__file__).resolve().parents[1]
BUDGET_S = 530.0  # of all steps; ten seconds are left for start and summary
_LEAST_S = 5.0  # a step is not started with less
REQUIRED = ("torchvision", "numpy", "kornia", "jaxtyping", "safetensors", "PIL", "tqdm", "filelock",
            "platformdirs", "psutil")  # fmt: skip
OPTIONAL = ("pytest", "beartype", "triton", "warp", "dlib", "face_alignment", "hydra", "omegaconf", "pyarrow",
            "skimage", "sklearn", "cv2")  # fmt: skip
_NOT_FOUND = re.compile(r"No module named '(\w+)|could not import '(\w+)'|^(\w+) is not installed")


@dataclass(frozen=True)
class Step:
    """One process: the tests, or a bench with its words. `longest_s` ends it."""

    name: str
    words: tuple[str, ...]
    longest_s: float

    def command(self, out: Path, limit_s: float) -> list[str]:
        """A bench leaves out what does not fit into nine tenths of its limit."""
        if self.name == "tests":
            return [sys.executable, "-m", "pytest", *self.words, *_plugins(), f"--junitxml={out / 'gpu-tests.xml'}"]
        more = (f"output={out}", "plots=false", f"minutes={0.9 * limit_s / 60:.2f}")
        return [sys.executable, "-m", "facerecon_torch", "bench", self.name, *self.words, *more]


_BOTH = "device=cpu,cuda"
STEPS = (
    Step("tests", ("-q", "-k", "cuda", "-m", "not slow", "--continue-on-collection-errors"), 170),
    Step("agree", ("device=cuda", "sizes=small"), 100),
    Step("hog", (_BOTH, "sizes=full", "batch=8", "landmarks=66", "stages=5", "rounds=7"), 60),
    Step("fit", (_BOTH, "batch=128,1024"), 40),
    Step("model", (_BOTH, "batch=32,128,1024"), 40),
    Step("infer", (_BOTH, "sizes=quick", "images=64", "rounds=2"), 50),
    Step("cascade", (_BOTH, "sizes=full", "images=1260", "all_images=0", "stages=5", "rounds=1"), 120),
    Step("stage", ("device=cuda", "sizes=full", "n=51000", "d=8316"), 90),
)  # fmt: skip


@dataclass
class Outcome:
    """What became of a step."""

    name: str
    status: str  # passed | failed | stopped | skipped
    seconds: float = 0.0
    note: str = ""
    missing: dict[str, int] = field(default_factory=dict)  # package -> what was skipped for want of it


def _plugins() -> list[str]:
    """Options that do not depend on plugins which may be missing here, nor on warnings of other versions."""
    options = ["-o", "addopts=--strict-markers", "-o", "filterwarnings=default"]
    if not missing_packages(("beartype",)):
        options.append("--jaxtyping-packages=facerecon_torch,beartype.beartype")
    return options


def missing_packages(names: Sequence[str]) -> list[str]:
    """The packages that cannot be imported here; none is imported."""
    missing = []
    for name in names:
        try:
            found = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            found = None
        if found is None:
            missing.append(name)
    return missing


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the JSON files")
    parser.add_argument("--steps", nargs="+", choices=[step.name for step in STEPS], help="default: all of them")
    chosen = parser.parse_args(arguments)
    reason = _no_device()
    if reason is not None:
        _say(f"make gpu: {reason}; nothing was run")
        return 0
    if absent := missing_packages(REQUIRED):
        _say(f"make gpu: {sys.executable} lacks {', '.join(absent)}; nothing was run")
        return 1
    chosen.out.mkdir(parents=True, exist_ok=True)
    steps = [step for step in STEPS if not chosen.steps or step.name in chosen.steps]
    return run(steps, chosen.out.resolve())


def _no_device() -> str | None:
    """Why there is no CUDA device; None where there is one."""
    if missing_packages(("torch",)):
        return f"{sys.executable} has no torch"
    import torch

    return None if torch.cuda.is_available() else f"torch {torch.__version__} sees no CUDA device"


def run(steps: Sequence[Step], out: Path) -> int:
    """All steps, then the summary and its file."""
    absent, began, outcomes = missing_packages(OPTIONAL), time.time(), list[Outcome]()
    for step in steps:
        outcomes.append(_run_step(step, out, BUDGET_S - (time.time() - began), absent))
    rows = read_rows(out, began)
    _say(summary(outcomes, rows, absent))
    _write(out, outcomes, rows, absent)
    return int(any(outcome.status == "failed" for outcome in outcomes))


def _run_step(step: Step, out: Path, left_s: float, absent: Sequence[str]) -> Outcome:
    if step.name == "tests" and "pytest" in absent:
        return Outcome(step.name, "skipped", note="pytest is not installed", missing={"pytest": 1})
    limit = min(step.longest_s, left_s)
    if limit < _LEAST_S:
        return Outcome(step.name, "skipped", note="no time was left")
    _say(f"\n>> {step.name}: at most {limit:.0f} s")
    began = time.time()
    status = _status(step.command(out, limit), limit)
    seconds = time.time() - began
    if status is None:
        return Outcome(step.name, "stopped", seconds, f"after its {limit:.0f} s")
    if step.name != "tests":
        return Outcome(step.name, "failed" if status else "passed", seconds, f"exit status {status}" if status else "")
    return read_tests(out / "gpu-tests.xml", status, seconds)


def _status(command: Sequence[str], limit_s: float) -> int | None:
    """The exit status; None where the process, with all that it started, had to be ended."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True) as process:
        try:
            return process.wait(limit_s)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                return None
            raise


def read_tests(path: Path, status: int, seconds: float) -> Outcome:
    """Counts of a junit file. An error that only says which package is missing is counted as skipped."""
    if not path.is_file():
        return Outcome("tests", "failed", seconds, f"exit status {status}, and no report")
    counts, missing, failed = Counter[str](), Counter[str](), list[str]()
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        problems = [part for part in case if part.tag in ("failure", "error", "skipped")]
        text = " ".join(f"{part.get('message', '')} {part.text or ''}" for part in problems)
        package = _package(text) if problems else None
        if package is not None:
            missing[package] += 1
        elif any(part.tag != "skipped" for part in problems):
            failed.append(f"{case.get('classname')}::{case.get('name')}")
        else:
            counts["skipped" if problems else "passed"] += 1
    path.unlink()
    note = f"{counts['passed']} passed, {len(failed)} failed, {counts['skipped']} skipped"
    note += f", {sum(missing.values())} for want of a package" if missing else ""
    note += "".join(f"\n    FAILED {name}" for name in failed[:20])
    passed = not failed and (counts["passed"] or status in (0, 5))
    return Outcome("tests", "passed" if passed else "failed", seconds, note, dict(missing))


def _package(text: str) -> str | None:
    found = _NOT_FOUND.search(text)
    name = next((group for group in found.groups() if group), None) if found else None
    return None if name in ("facerecon_torch", "benchmarks", "tests") else name


def read_rows(out: Path, since: float) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """(bench, case) -> device -> row, of the result files written after `since`."""
    rows: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for path in sorted(out.glob("*--*.json")):
        if path.stat().st_mtime < since or path.name.startswith("gpu--"):
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        device = "cpu" if content["machine"]["device"] == "cpu" else "cuda"
        for row in content["rows"]:
            if not row["rival"]:
                rows.setdefault((content["bench"], f"{row['group']}: {row['name']}"), {})[device] = row
    return rows


def summary(outcomes: Sequence[Outcome], rows: dict[Any, dict[str, dict[str, Any]]], absent: Sequence[str]) -> str:
    """The one table: our rows on CPU and CUDA, then the steps, then what was skipped for want of a package."""
    order = [step.name for step in STEPS]
    lines = [f"\n{'what, time per item':<78}{'CPU':>11}{'CUDA':>11}{'CPU : CUDA':>12}  errors"]
    for (bench, name), each in sorted(rows.items(), key=lambda item: order.index(item[0][0])):
        times = [each.get(device, {}).get("median_ms") for device in ("cpu", "cuda")]
        ratio = f"{times[0] / times[1]:.1f}" if all(times) else "-"
        told = "; ".join(filter(None, (_told(device, row) for device, row in each.items())))
        lines.append(f"{f'{bench}: {name}'[:77]:<78}{_ms(times[0]):>11}{_ms(times[1]):>11}{ratio:>12}  {told}")
    lines += ["", *(f"{o.name:<10}{o.status:<9}{o.seconds:6.0f} s  {o.note}" for o in outcomes)]
    skipped = Counter(_package(row["skipped"]) for each in rows.values() for row in each.values() if row["skipped"])
    for outcome in outcomes:
        skipped.update(outcome.missing)
    lines += [f"not installed: {', '.join(absent) or 'nothing'}"]
    lines += [
        f"skipped for want of {package}: {count}" for package, count in sorted(skipped.items(), key=str) if package
    ]
    return "\n".join(lines)


def _told(device: str, row: dict[str, Any]) -> str:
    if row["failure"]:
        return f"{device} FAULT: {row['failure']}"
    if row["skipped"]:
        return f"{device}: {row['skipped']}"
    return ", ".join(f"{row['error'][k]:.1g} of {v:.0e}" for k, v in row["limits"].items() if k in row["error"])


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3g} ms" if value < 1e3 else f"{value / 1e3:.3g} s"


def _write(out: Path, outcomes: Sequence[Outcome], rows: dict[Any, Any], absent: Sequence[str]) -> None:
    import torch

    from .results import describe_machine

    machine = describe_machine(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    table = [{"bench": bench, "case": name, **each} for (bench, name), each in rows.items()]
    content = {"machine": machine, "not_installed": absent, "steps": [asdict(o) for o in outcomes], "rows": table}
    name = re.sub(r"\W+", "-", str(machine["device"]).lower()).strip("-")
    path = out / f"gpu--{name}.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    _say(f"written: {path}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
