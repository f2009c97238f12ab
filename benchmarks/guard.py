"""`make bench-quick`: are we, against our rivals and against the machine's ceilings, as fast as we were?

Only ratios are compared: how many times as long a rival takes, and which share of a ceiling a case reaches. Times would
say more about the machine. The tolerance of each ratio comes from the repeated runs that were recorded with it. Ratios
depend on the processor too: a rival's kernels may be better on one make than on another, and so may ours. Beside the
record of another processor a fall is a note; beside a record of this one it is a failure.
"""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .case import Row
from .timing import paired_ratio

__all__ = ["Comparison", "compare", "ratios", "record"]

FORMAT = "facerecon-bench-guard/1"
_SPREADS = 4.0  # standard deviations of the logarithm of a ratio over the recorded runs
PROCESSOR = ("cpu", "instructions", "cpus", "threads", "device")
"""What two runs must share for a fall to be a failure: the processor's name, the instructions that torch's kernels
use, how many processors there are, the threads, and the device."""
_LEAST, _MOST = 0.25, 0.5  # whole runs on a busy machine differ by 20 %; a ratio with more noise is not recorded


def ratios(bench: str, rows: Sequence[Row]) -> dict[str, float]:
    """Every ratio of one bench on one device; larger is better."""
    by_key = {row.key: row for row in rows}
    found: dict[str, float] = {}
    for row in rows:
        name = f"{bench} / {row.key}"
        ours = by_key.get(f"{row.group}: {row.versus}")
        ratio = paired_ratio(row, ours) if row.rival and ours is not None else None
        if ratio is not None:
            found[f"{name} : {row.versus}"] = ratio
        if not row.rival:
            shares = {"copy": row.share_of_copy, "product": row.share_of_product}
            found |= {f"{name}, share of {k}": v for k, v in shares.items() if v is not None}
    return found


def record(path: Path, runs: Sequence[Mapping[str, float]], machine: Mapping[str, Any]) -> None:
    """Write the medians of several whole runs, with the fall of each ratio that is still noise.

    That fall is `1 - exp(-4 s)`, s the standard deviation of the ratio's logarithm over the runs, and at least 25 %. A
    ratio that would need more than 50 % guards nothing and is left out. Raises ValueError with fewer than three runs.
    """
    if len(runs) < 3:
        raise ValueError(f"the guard needs at least 3 runs to know the noise; got {len(runs)}")
    entries = {}
    for name in runs[0]:
        values = [run[name] for run in runs if name in run]
        if len(values) < len(runs) or min(values) <= 0:
            continue
        spread = statistics.stdev(math.log(value) for value in values)
        fall = max(1.0 - math.exp(-_SPREADS * spread), _LEAST)
        if fall > _MOST:
            continue
        entries[name] = {"ratio": statistics.median(values), "tolerance": round(fall, 3), "runs": values}
    content = {"format": FORMAT, "machine": dict(machine), "ratios": entries}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Comparison:
    """Ratios of now beside those of a record."""

    told: tuple[str, ...]
    fell: tuple[str, ...]
    same_processor: bool

    @property
    def failed(self) -> bool:
        return self.same_processor and bool(self.fell)

    def lines(self) -> list[str]:
        """What is printed: a fall beside the record of another processor is a note."""
        word = "FELL" if self.same_processor else "note"
        return [*self.told, *(f"{word}: {line}" for line in self.fell)]


def compare(path: Path, found: Mapping[str, float], machine: Mapping[str, Any]) -> Comparison:
    """The ratios that are below the recorded ones by more than their tolerances.

    The processor is the same where every entry of `PROCESSOR` that the record holds has the value it has in `machine`.

    Raises FileNotFoundError without a record, ValueError for one that is not of this format.
    """
    if not path.is_file():
        raise FileNotFoundError(f"the guard has no record at {path}; `make bench-record` writes one")
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("format") != FORMAT:
        raise ValueError(f"{path} must be of format {FORMAT}; got {content.get('format')!r}")
    then = {name: content["machine"][name] for name in PROCESSOR if name in content["machine"]}
    now = {name: machine.get(name) for name in then}
    told = []
    if then != now:
        told.append(f"recorded on another processor ({_named(then)}; here {_named(now)}): what fell is a note")
    entries = content["ratios"]
    fell = tuple(line for name, entry in entries.items() if (line := _fall(name, entry, found.get(name))) is not None)
    told.append(f"{len(entries) - len(fell)} of {len(entries)} ratios are within their tolerance of the recorded ones")
    return Comparison(tuple(told), fell, then == now)


def _fall(name: str, entry: Mapping[str, float], now: float | None) -> str | None:
    """How far a ratio is below the recorded one, in words; None within the tolerance."""
    if now is None:
        return f"{name}: was {entry['ratio']:.3g}, was not measured now"
    if now >= (1.0 - entry["tolerance"]) * entry["ratio"]:
        return None
    fall = 100 * (1 - now / entry["ratio"])
    return f"{name}: {entry['ratio']:.3g} fell to {now:.3g} ({fall:.0f} %, tolerated {100 * entry['tolerance']:.0f} %)"


def _named(processor: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in processor.items())
