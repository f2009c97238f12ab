"""`make bench-quick`: are we, against our rivals and against the machine's ceilings, as fast as we were?

Only ratios are compared: how many times as long a rival takes, and which share of a ceiling a case reaches. Times would
say more about the machine. The tolerance of each ratio comes from the repeated runs that were recorded with it.
"""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .case import Row
from .timing import paired_ratio

__all__ = ["compare", "ratios", "record"]

FORMAT = "facerecon-bench-guard/1"
_SPREADS = 4.0  # standard deviations of the logarithm of a ratio over the recorded runs
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


def compare(path: Path, found: Mapping[str, float], machine: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """(what is worth knowing, what fell). On another machine than the recorded one the tolerances are doubled.

    Raises FileNotFoundError without a record, ValueError for one that is not of this format.
    """
    if not path.is_file():
        raise FileNotFoundError(f"the guard has no record at {path}; `make bench-record` writes one")
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("format") != FORMAT:
        raise ValueError(f"{path} must be of format {FORMAT}; got {content.get('format')!r}")
    told, fell, factor = [], [], 1.0
    then = content["machine"]
    if any(then.get(name) != machine.get(name) for name in ("cpu", "cpus", "threads", "device")):
        factor = 2.0
        told.append(f"recorded on another machine ({then.get('cpu')}, {then.get('threads')} threads): "
                    "tolerances are doubled")  # fmt: skip
    for name, entry in content["ratios"].items():
        if name not in found:
            fell.append(f"{name}: was {entry['ratio']:.3g}, was not measured now")
            continue
        tolerance = min(factor * entry["tolerance"], 0.75)
        if not found[name] >= (1.0 - tolerance) * entry["ratio"]:
            fell.append(
                f"{name}: {entry['ratio']:.3g} fell to {found[name]:.3g} "
                f"({100 * (1 - found[name] / entry['ratio']):.0f} %, tolerated {100 * tolerance:.0f} %)"
            )
    kept = len(content["ratios"]) - len(fell)
    told.append(f"{kept} of {len(content['ratios'])} ratios are within their tolerance of the recorded ones")
    return told, fell
