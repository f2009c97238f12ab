"""What a synthetic data set in a real layout is, and what a layout must offer to be written."""

import importlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.synthetic.spec import describe_hash, seeded

__all__ = ["LAYOUTS", "LAYOUT_VERSION", "Layout", "LayoutSpec", "LayoutTruth", "find_layout"]

LAYOUTS = ("bosphorus", "facewarehouse", "frgc")
LAYOUT_VERSION = 1
"""Part of the hash: raised whenever the same spec would give other files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutSpec:
    """The first `subjects` people of a layout. Every byte of the set follows from it.

    People are drawn from the layout's own seeds: they differ from those of the model and of every other set.
    """

    layout: str  # one of LAYOUTS
    subjects: int
    seed: int = 0
    samples: int | None = None  # of each subject at most, spread over its classes; None: all

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}; got {self.layout!r}")
        if self.subjects < 1 or (self.samples is not None and self.samples < 1):
            raise ValueError(f"subjects and samples must be at least 1; got {self}")

    @property
    def hash(self) -> str:
        """Hex digest of the description, the renderer's version and the default face's asset."""
        return describe_hash({**asdict(self), "version": LAYOUT_VERSION})

    def generator(self, subject: int, *purpose: int | str) -> torch.Generator:
        """Random numbers of one subject for one purpose."""
        return seeded("layout", self.layout, self.seed, subject, *purpose)


@runtime_checkable
class Layout(Protocol):
    """One layout. Units are the resumable pieces of work, about a subject each."""

    full_subjects: int  # of the real set

    def units(self, spec: LayoutSpec) -> list[str]:
        """Names of the pieces, plain file names, in the order of the truth. Raises ValueError for a spec that the
        layout cannot fill."""
        ...

    def names(self, spec: LayoutSpec, unit: str) -> list[str]:
        """Names of a unit's samples, one per row of its truth."""
        ...

    def write(self, spec: LayoutSpec, unit: str, out: Path) -> dict[str, Tensor]:
        """Write a unit's files below `out` (each aside, then renamed) and return its rows of the truth: `vertices`,
        `rotation`, `translation`, `landmarks`, `subjects`, `expression_weights` and whatever else belongs to a
        sample."""
        ...

    def bytes_needed(self, spec: LayoutSpec) -> int:
        """Estimated size of the whole set on disk."""
        ...


@dataclass(frozen=True)
class LayoutTruth:
    """The truth behind a set, a row per sample.

    `vertices` is the true mesh on the default face's topology (mm, model frame); scan = rotation v + translation;
    `landmarks` are the true 66 in px of the sample's picture, (0, 0) its first pixel's centre; `extra` holds what
    only some layouts have.
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


def find_layout(name: str) -> Layout:
    """The layout of that name; ValueError for another one."""
    if name not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}; got {name!r}")
    layout: Layout = importlib.import_module(f"facerecon_torch.synthetic.layouts.{name}").LAYOUT
    return layout
