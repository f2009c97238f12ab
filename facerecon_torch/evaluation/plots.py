"""Charts as PNG bytes, drawn by matplotlib (extra `report`)."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.errors import MissingExtraError
from facerecon_torch.metrics.landmarks import cumulative_error

__all__ = ["bar_chart", "colour_scale", "curve_chart", "cumulative_chart"]

_INCHES = (8.0, 4.2)
_DPI = 110
_STEPS = 400  # of a cumulative curve


def _axes(panels: int = 1) -> tuple[Any, Any]:
    """A figure of the object interface, which keeps no global state, and its axes side by side."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("charts", "matplotlib", "report") from None
    figure = Figure(figsize=_INCHES, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(axis="y", linewidth=0.4, alpha=0.6)
    return figure, axes


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": "facerecon_torch"})
    return buffer.getvalue()


def bar_chart(values: Mapping[str, Sequence[float]], labels: Sequence[str], *, unit: str) -> bytes:
    """Groups of bars: one group per label, one bar per entry of `values`."""
    figure, (axes,) = _axes()
    width = 0.8 / max(1, len(values))
    for k, (name, heights) in enumerate(values.items()):
        axes.bar([i + (k - (len(values) - 1) / 2) * width for i in range(len(labels))], heights, width, label=name)
    axes.set_xticks(range(len(labels)), labels, rotation=45 if len(labels) > 8 else 0)
    axes.set_ylabel(unit)
    figure.legend(fontsize=8, ncols=5, loc="outside lower center")
    return _png(figure)


def cumulative_chart(panels: Mapping[str, Mapping[str, Float[Tensor, "n"]]], limit: float, *, unit: str) -> bytes:
    """Cumulative error distributions: a panel per entry, a curve per method, up to `limit`."""
    figure, axes = _axes(len(panels))
    for one, (title, methods) in zip(axes, panels.items(), strict=True):
        at = torch.linspace(0, limit, _STEPS, dtype=torch.float64)
        for name, errors in methods.items():
            one.plot(at.numpy(), cumulative_error(errors.double(), at).numpy(), label=name)
        one.set_title(title)
        one.set_xlabel(unit)
        one.set_ylim(0, 1.02)
    axes[0].set_ylabel("share of images")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, ncols=5, loc="outside lower center")
    return _png(figure)


def curve_chart(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], *, x: Sequence[str], y: str, log: Sequence[bool]
) -> bytes:
    """Lines through points: a panel per entry, a line per name.

    Args:
        panels: title -> lines; names alike up to a comma have one colour, and further ones of them are dashed.
        x: labels of the panels.
        y: label.
        log: whether the panels are logarithmic in x.
    """
    figure, axes = _axes(len(panels))
    owners = list(dict.fromkeys(name.partition(",")[0] for lines in panels.values() for name in lines))
    for one, (title, lines), label, logarithmic in zip(axes, panels.items(), x, log, strict=True):
        seen = list[str]()
        for name, points in lines.items():
            owner = name.partition(",")[0]
            line = "-" if owner not in seen else "--"
            seen.append(owner)
            colour = f"C{owners.index(owner) % 10}"
            one.plot(*zip(*points, strict=True), line, color=colour, marker="o", markersize=3, label=name)
        one.set_title(title)
        one.set_xlabel(label)
        if logarithmic:
            one.set_xscale("log")
        one.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    axes[0].set_ylabel(y)
    return _png(figure)


def colour_scale(values: Float[Tensor, "*b"], limit: float) -> Float[Tensor, "*b 3"]:
    """Colours of values from 0 to `limit`, as sRGB in [0, 1]: dark violet, green, yellow (viridis)."""
    try:
        from matplotlib import colormaps
    except ImportError:
        raise MissingExtraError("error maps", "matplotlib", "report") from None
    colours = colormaps["viridis"]((values / limit).clamp(0, 1).cpu().numpy())
    return torch.from_numpy(colours)[..., :3].to(torch.float32)
