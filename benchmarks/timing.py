"""Timing for every benchmark: the same clock, the same row.

Cases of one group take turns, round by round, so that whatever else runs on the machine slows all of them; ratios
between them are then worth more than the times themselves.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from .case import Alone, Case, Context, Group, Row
from .memory import HERE, PeakMeter, run_alone

__all__ = ["measure_group", "missing_package", "paired_ratio"]

_FEWEST_ROUNDS = 3
_SLOW_S = 0.5
_OF_DEVICE = "of the device, above what stood before"
Ceilings = Mapping[str, Any]


def measure_group(group: Group, context: Context, *, ceilings: Ceilings, warm_ups: int = 2) -> list[Row]:
    """Rows of all cases of a group, in order. A case that fails leaves a row that says how; the others go on."""
    rows = [Row.of(group, case) for case in group.cases]
    if group.expected_s > context.seconds_left or context.seconds_left <= 0:
        for row in rows:
            row.skipped = row.skipped or f"no time left for it (about {group.expected_s:.0f} s)"
        return rows
    rounds = group.rounds or context.rounds
    here = [(row, case) for row, case in zip(rows, group.cases) if isinstance(case, Case) and not case.missing]
    answers = _take_turns(here, context.device, rounds, warm_ups, min(group.longest_s, context.longest_s))
    for k, (row, case) in enumerate(zip(rows, group.cases)):
        if isinstance(case, Alone):
            rows[k] = _measure_alone(row, case, group, context, ceilings)
        elif row.rounds_ms:
            _summarise(row, ceilings)
            if case.error is not None:
                _attempt(row, lambda row=row, case=case: row.judge(case.error(answers[row.key])))  # type: ignore[misc]
    return rows


def _take_turns(
    cases: list[tuple[Row, Case]], device: torch.device, rounds: int, warm_ups: int, longest_s: float
) -> dict[str, Any]:
    """The last answer of every case, by row."""
    answers: dict[str, Any] = {}
    for row, case in cases:
        for _ in range(warm_ups):
            # Each call is measured alone: its answer goes before the next one, and the meter returns its freed pages.
            meter = PeakMeter(device)
            seconds = _attempt(row, lambda case=case: _timed(case, device)[0])  # type: ignore[misc]
            _keep_memory(row, meter, device)
            if seconds is None or seconds > _SLOW_S:  # it failed, or nothing in it is left to warm up
                break
    began = time.monotonic()
    for done in range(rounds):
        taken_s = time.monotonic() - began
        if done and taken_s > (longest_s if done >= _FEWEST_ROUNDS else 3 * longest_s):
            break
        for row, case in cases:
            if row.failure is not None or row.skipped is not None:
                continue
            meter = PeakMeter(device) if not warm_ups else None
            taken = _attempt(row, lambda case=case: _timed(case, device))  # type: ignore[misc]
            if taken is not None:
                row.rounds_ms.append(taken[0] * 1e3 / case.items)
                answers[row.key] = taken[1]
            if meter is not None:
                _keep_memory(row, meter, device)
    return answers


def _keep_memory(row: Row, meter: PeakMeter, device: torch.device) -> None:
    peak_mib = meter.peak_mib()
    if row.peak_mib is None or peak_mib > row.peak_mib:
        row.base_mib, row.peak_mib, row.memory = meter.base_mib, peak_mib, HERE
    if device.type == "cuda":
        row.host_peak_mib, row.memory = max(row.host_peak_mib or 0.0, meter.host_peak_mib()), _OF_DEVICE


def _timed(case: Case, device: torch.device) -> tuple[float, Any]:
    start = time.perf_counter()
    answer = case.run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, answer


def _attempt(row: Row, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except ModuleNotFoundError as error:
        row.skipped = missing_package(error)
        row.failure = None if row.skipped else f"{type(error).__name__}: {error}"
    except Exception as error:  # the row says what happened; the other cases go on
        row.failure = f"{type(error).__name__}: {error}"
    return None


def missing_package(error: ModuleNotFoundError) -> str | None:
    """Why a case is skipped whose package is not installed; None where it is a module of this repository."""
    package = (error.name or "").partition(".")[0]
    return None if package in ("", "facerecon_torch", "benchmarks", "tests") else f"{package} is not installed"


def _summarise(row: Row, ceilings: Ceilings) -> None:
    low, middle, high = statistics.quantiles([*row.rounds_ms] * 2, n=4, method="inclusive")
    row.median_ms, row.low_ms, row.spread_ms = middle, min(row.rounds_ms), high - low
    seconds = middle * row.items / 1e3
    row.per_second = row.items / seconds
    if row.bytes is not None:
        row.share_of_copy = row.bytes / seconds / (1e9 * ceilings["copy_gb_s"])
    if row.operations is not None:
        rate = ceilings["product_gflop_s"].get(row.precision or ceilings["dtype"])
        row.share_of_product = None if rate is None else row.operations / seconds / (1e9 * rate)


def _measure_alone(row: Row, case: Alone, group: Group, context: Context, ceilings: Ceilings) -> Row:
    task = {
        "name": case.name, "group": group.name, "axis": group.axis, "x": group.x, "build": case.build,
        "arguments": dict(case.arguments), "rounds": case.rounds, "sizes": dict(context.sizes),
        "device": str(context.device), "dtype": str(context.dtype).removeprefix("torch."),
        "threads": context.threads, "ceilings": dict(ceilings),
    }  # fmt: skip
    left = None if context.deadline is None else context.seconds_left
    found = _attempt(row, lambda: run_alone(task, timeout_s=left))
    return row if found is None else Row(**{**found, "versus": row.versus})


def paired_ratio(rival: Row, own: Row) -> float | None:
    """How many times as long the rival takes: the median over rounds that both took part in; None without both."""
    pairs = list(zip(rival.rounds_ms, own.rounds_ms))
    return statistics.median(a / b for a, b in pairs) if pairs else None
