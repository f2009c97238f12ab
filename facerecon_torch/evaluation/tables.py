"""Tables, figures and sections: the form in which results reach the page."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from facerecon_torch.metrics.bootstrap import Interval

__all__ = ["METRICS_FORMAT", "Figure", "Section", "Table", "interval_text", "percent_text"]

METRICS_FORMAT = "facerecon-metrics"
"""The mark of metrics.json."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as text. `caption` says the protocol and the alignment."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture as the bytes of a PNG; `name` is that of its file, `alternative` its description in words."""

    name: str
    caption: str
    alternative: str
    png: bytes


@dataclass(frozen=True, kw_only=True)
class Section:
    """The tables and figures of one experiment on the page."""

    name: str
    title: str
    text: str = ""
    tables: Sequence[Table] = field(default_factory=tuple)
    figures: Sequence[Figure] = field(default_factory=tuple)


def interval_text(interval: Interval) -> str:
    """`-0.123 [-0.200, -0.050]`; the mean alone where there is one subject."""
    if interval.low is None or interval.high is None:
        return f"{interval.mean:+.3f}"
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def percent_text(ratio: Interval) -> str:
    """A ratio as its distance from one: `-12.3 % [-14.0, -10.1]`."""
    mean = f"{100 * (ratio.mean - 1):+.1f} %"
    if ratio.low is None or ratio.high is None:
        return mean
    return f"{mean} [{100 * (ratio.low - 1):+.1f}, {100 * (ratio.high - 1):+.1f}]"
