"""The printed answer: CPU | CUDA | ratio, with throughput, memory, shares of the ceilings and errors."""

from collections.abc import Mapping, Sequence
from typing import Any

from .case import Row
from .timing import paired_ratio

__all__ = ["ceiling_lines", "table"]

NOT_MEASURED = "not measured"
_HEAD = f"{'':<58}{'CPU':>24} | {'CUDA':>24} | {'CPU : CUDA':>10} | {'peak MiB, CPU / CUDA':>22}"


def table(bench: str, title: str, rows: Mapping[str, Sequence[Row]]) -> str:
    """The rows of one bench by device type (`cpu`, `cuda`); a device that is not there was not measured."""
    by_key: dict[str, dict[str, Row]] = {}
    for device, found in rows.items():
        for row in found:
            by_key.setdefault(row.key, {})[device] = row
    lines, group = [f"== {bench}: {title}", _HEAD], None
    for each in by_key.values():
        some = next(iter(each.values()))
        if some.group != group:
            group = some.group
            lines.append(f"{group}")
        lines += _lines(each)
    for device, found in rows.items():
        lines += [f"  {line} ({device})" for line in _against_rivals(found)]
    return "\n".join(lines)


def _lines(each: Mapping[str, Row]) -> list[str]:
    """One case: its figures, then a line for shares of the ceilings and one for errors, per device."""
    cpu, cuda = each.get("cpu"), each.get("cuda")
    some = cpu or cuda
    if some is None:
        return []
    name = ("(rival) " if some.rival else "") + some.name
    ratio = "-"
    if cpu and cuda and cpu.median_ms and cuda.median_ms:
        ratio = f"{cpu.median_ms / cuda.median_ms:.1f}"
    memory = f"{_mib(cpu)} / {_mib(cuda)}"
    lines = [f"  {name:<56}{_time(cpu):>24} | {_time(cuda):>24} | {ratio:>10} | {memory:>22}"]
    for device, row in each.items():
        if shares := _shares(row):
            lines.append(f"      {device}: {shares}")
        if row.error:
            told = ", ".join(f"{k} {v:.2g}{_limit(row, k)}" for k, v in row.error.items())
            lines.append(f"      {device} error: {told}")
        if row.failure:
            lines.append(f"      {device} FAULT: {row.failure}")
        if row.skipped:
            lines.append(f"      {device}: {row.skipped}")
    return lines


def _limit(row: Row, name: str) -> str:
    return f" (at most {row.limits[name]:.0e})" if name in row.limits else ""


def _time(row: Row | None) -> str:
    if row is None:
        return NOT_MEASURED
    if row.median_ms is None:
        return "FAULT" if row.failure else NOT_MEASURED
    rate = f"{row.per_second:,.0f}" if (row.per_second or 0) >= 10 else f"{row.per_second:.3g}"
    return f"{_ms(row.median_ms)} {rate}/s"


def _ms(value: float) -> str:
    if value < 1e3:
        return f"{value:.3g} ms"
    return f"{value / 1e3:.3g} s"


def _mib(row: Row | None) -> str:
    if row is None or row.peak_mib is None or row.median_ms is None:
        return "-"
    alone = "*" if row.memory and row.memory.startswith("a fresh") else ""
    return f"{row.peak_mib:,.0f}{alone}"


def _shares(row: Row) -> str:
    parts = []
    if row.share_of_copy is not None:
        parts.append(f"{100 * row.share_of_copy:.1f} % of the copy ceiling")
    if row.share_of_product is not None:
        precision = f" ({row.precision})" if row.precision else ""
        parts.append(f"{100 * row.share_of_product:.1f} % of the matrix product ceiling{precision}: {row.formula}")
    return ", ".join(parts)


def _against_rivals(rows: Sequence[Row]) -> list[str]:
    own = {row.key: row for row in rows}
    lines = []
    for row in rows:
        ours = own.get(f"{row.group}: {row.versus}")
        if not row.rival or ours is None or row is ours:
            continue
        ratio = paired_ratio(row, ours)
        if ratio is not None:
            lines.append(f"{row.group}: {ours.name} {_times(ratio)} {row.name}")
    return lines


def _times(ratio: float) -> str:
    """How fast ours is, for a rival that takes `ratio` times as long."""
    return f"is {ratio:.3g} times as fast as" if ratio >= 1 else f"takes {1 / ratio:.3g} times as long as"


def ceiling_lines(ceilings: Mapping[str, Any]) -> str:
    """The ceilings of one device."""
    products = ", ".join(f"{name} {rate:,.0f}" for name, rate in ceilings["product_gflop_s"].items())
    return (
        f"ceilings of {ceilings['device']}, {ceilings['threads']} threads: copy {ceilings['copy_gb_s']:.1f} GB/s "
        f"(read + written), matrix product in GFLOP/s: {products}"
    )
