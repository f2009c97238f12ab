"""Description and truth of a synthetic set in a real layout, and the interface of a layout."""

import importlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.synthetic.spec import describe_hash, seeded

__all__ = ["LAYOUTS", "LAYOUT_VERSION", "Layout", "LayoutSpec", "LayoutTruth", "find_layout", "stack_rows"]

LAYOUTS = ("bosphorus", "facewarehouse", "frgc")
LAYOUT_VERSION = 1
"""Part of the hash: raised whenever the same spec would give other files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutSpec:
    """The first `subjects` people of a layout; every byte of the set follows from it.

    People are drawn from the layout's own seeds, so they differ from those of the model and of every other set.
    """

    layout: str  # one of LAYOUTS
    subjects: int
    seed: int = 0
    samples: int | None = None  # most per subject, spread over its classes; None: all

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}; got {self.layout!r}")
        if self.subjects < 1 or (self.samples is not None and self.samples < 1):
            raise ValueError(f"subjects and samples must be at least 1; got {self}")

    @property
    def hash(self) -> str:
        """The hex digest of the description, the renderer's version and the default face's asset."""
        return describe_hash({**asdict(self), "version": LAYOUT_VERSION})

    def generator(self, subject: int, *purpose: int | str) -> torch.Generator:
        """The random generator of one subject for one purpose."""
        return seeded("layout", self.layout, self.seed, subject, *purpose)


@runtime_checkable
class Layout(Protocol):
    """One layout. A unit is a resumable piece of work, about one subject."""

    full_subjects: int  # people in the real set

    def units(self, spec: LayoutSpec) -> list[str]:
        """The names of the units, plain file names, in the order of the truth.

        Raises ValueError for a spec that the layout cannot fill.
        """
        ...

    def names(self, spec: LayoutSpec, unit: str) -> list[str]:
        """The names of a unit's samples, one per row of its truth."""
        ...

    def write(self, spec: LayoutSpec, unit: str, output: Path) -> dict[str, Tensor]:
        """The truth of a unit, a row per sample, after its files are written below `output` (aside, then renamed).

        Keys: `vertices`, `rotation`, `translation`, `landmarks`, `subjects`, `expression_weights` and the layout's own.
        """
        ...

    def bytes_needed(self, spec: LayoutSpec) -> int:
        """The estimated size of the whole set on disk."""
        ...


@dataclass(frozen=True)
class LayoutTruth:
    """The truth of a set, a row per sample.

    `vertices` is the true mesh on the default face's topology (mm, model frame); scan = rotation v + translation;
    `landmarks` are the true 66 in px of the sample's image, (0, 0) the first pixel's centre; `extra` holds the tensors
    of single layouts.
    """

    spec: LayoutSpec
    names: tuple[str, ...]
    subjects: Int[Tensor, "n"]
    vertices: Float[Tensor, "n v 3"]
    rotation: Float[Tensor, "n 3 3"]
    translation: Float[Tensor, "n 3"]
    landmarks: Float[Tensor, "n 66 2"]
    expression_names: tuple[str, ...]
    expression_weights: Float[Tensor, "n exps"]
    extra: dict[str, Tensor]


def stack_rows(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The rows of a truth as one table."""
    return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}


def find_layout(name: str) -> Layout:
    """The layout of one of the names LAYOUTS. Raises ValueError for another name."""
    if name not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}; got {name!r}")
    layout: Layout = importlib.import_module(f"facerecon_torch.synthetic.layouts.{name}").LAYOUT
    return layout
