"""Other systems beside the methods of a study: their faces on some of its photographs, and the errors of all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from facerecon_torch.external.measure import MethodErrors
from facerecon_torch.external.methods import MethodFaces
from facerecon_torch.external.report import comparison_report
from facerecon_torch.external.truth import Truth

__all__ = ["Outside"]


@dataclass(frozen=True, kw_only=True)
class Outside:
    """Faces of other systems.

    Attributes:
        places: rows of the study's tested photographs.
        truth: these photographs, with their true meshes as scans.
        others: the faces of the other systems, in frames and units of their own.
        errors: of the study's methods and of the other systems, on these photographs.
        notes: how each other system ran, or which of its files gave no face.
    """

    places: tuple[int, ...]
    truth: Truth
    others: Sequence[MethodFaces]
    errors: Sequence[MethodErrors]
    notes: Mapping[str, str]

    def report(self, reference: str, generator: torch.Generator) -> dict[str, Any]:
        """Means over the photographs that all have, and the differences of `reference` to each, as plain values."""
        report = comparison_report(self.errors, self.truth, generator, reference=reference)
        return report | {"notes": dict(self.notes)}
