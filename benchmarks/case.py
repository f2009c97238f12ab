"""What a benchmark is made of: cases that are timed in turns, the rows they leave, and what a run is told."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

__all__ = ["Alone", "Case", "Context", "Group", "Row"]

Sizes = Mapping[str, Any]


@dataclass(frozen=True)
class Context:
    """What every bench of a run is told. `sizes` are the numbers of this bench; `deadline` is of time.monotonic()."""

    device: torch.device
    dtype: torch.dtype
    sizes: Sizes
    threads: int
    rounds: int = 9
    rate: float = 100.0  # GFLOP/s of matrix products, for guesses of what fits
    deadline: float | None = None
    longest_s: float = float("inf")  # of a group, whatever it says itself

    @property
    def on_cpu(self) -> bool:
        """Whether rivals, which know no other device, take part."""
        return self.device.type == "cpu"

    @property
    def seconds_left(self) -> float:
        return float("inf") if self.deadline is None else self.deadline - time.monotonic()

    def list(self, name: str) -> list[Any]:
        """A size that may be one number or several."""
        value = self.sizes[name]
        return list(value) if isinstance(value, (list, tuple)) else [value]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One call that is timed. It treats `items` things called `unit`.

    `bytes`: inputs read once and outputs written once; `operations`: floating-point operations by `formula`; both of
    one call, and the floor that the case is measured against. `error` judges the answer of the last timed call; a value
    above its entry in `limits`, or NaN there, makes the row a FAULT.
    """

    name: str
    run: Callable[[], Any]
    items: int = 1
    unit: str = "item"
    rival: bool = False
    bytes: float | None = None
    operations: float | None = None
    formula: str | None = None
    precision: str | None = None  # of the matrix product ceiling, where it is not that of the run
    error: Callable[[Any], dict[str, float]] | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    missing: str | None = None  # why the case can't run here: a row says so


@dataclass(frozen=True, kw_only=True)
class Alone:
    """A case that a fresh process builds and runs, so that its peak memory is its own: `build` is "module:function"
    of this package, called with the context and `arguments`; it returns the Case."""

    name: str
    build: str
    arguments: Mapping[str, Any]
    rounds: int = 1


@dataclass(frozen=True, kw_only=True)
class Group:
    """Cases that take turns, round by round. `axis` and `x` place them on a scaling plot.

    `versus` is the case that rivals are compared with (default: the first one that is no rival); `expected_s` is about
    how long the group takes: with too little time left it is skipped. `longest_s` ends the rounds after three
    of them, and three times as much after the first.
    """

    name: str
    cases: Sequence[Case | Alone]
    axis: str | None = None
    x: float | None = None
    versus: str | None = None
    rounds: int | None = None
    expected_s: float = 0.0
    longest_s: float = 20.0


@dataclass
class Row:
    """One case: milliseconds per item over the rounds, memory, shares of the ceilings, errors."""

    group: str
    name: str
    unit: str = "item"
    items: int = 1
    rival: bool = False
    axis: str | None = None
    x: float | None = None
    versus: str | None = None
    median_ms: float | None = None
    low_ms: float | None = None  # fastest round
    spread_ms: float | None = None  # between the quartiles of the rounds
    rounds_ms: list[float] = field(default_factory=list)
    per_second: float | None = None  # items
    peak_mib: float | None = None  # above `base_mib`; on CUDA of the device
    base_mib: float | None = None  # what stood before the case ran
    host_peak_mib: float | None = None  # with a device other than the CPU: of the process, in all
    memory: str | None = None  # how it was measured
    bytes: float | None = None
    operations: float | None = None
    formula: str | None = None
    precision: str | None = None
    share_of_copy: float | None = None
    share_of_product: float | None = None
    error: dict[str, float] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    failure: str | None = None  # FAULT: raised, or answered wrongly
    skipped: str | None = None  # not measured, and why

    @property
    def key(self) -> str:
        return f"{self.group}: {self.name}"

    @classmethod
    def of(cls, group: Group, case: Case | Alone) -> "Row":
        """A row without figures."""
        row = cls(group.name, case.name, axis=group.axis, x=group.x, versus=group.versus or _first(group))
        if isinstance(case, Case):
            for name in ("unit", "items", "rival", "bytes", "operations", "formula", "precision"):
                setattr(row, name, getattr(case, name))
            row.limits, row.skipped = dict(case.limits), case.missing
        return row

    def judge(self, found: Mapping[str, float]) -> None:
        """Keep errors, and say which of them are too large."""
        self.error = {name: float(value) for name, value in found.items()}
        missing = [f"{name} was not measured" for name in self.limits if name not in self.error]
        wrong = [
            f"{name} {self.error[name]:.2e} is above {limit:.0e}"
            for name, limit in self.limits.items()
            if name in self.error and not self.error[name] <= limit  # this form refuses NaN too
        ]
        if missing or wrong:
            self.failure = "; ".join(missing + wrong)


def _first(group: Group) -> str | None:
    own = [case.name for case in group.cases if not (isinstance(case, Case) and (case.rival or case.missing))]
    return own[0] if own else None


def slug(text: str) -> str:
    """`text` as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
