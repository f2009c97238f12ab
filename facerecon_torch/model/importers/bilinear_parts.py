"""Assembly of a bilinear model from the arrays of its file: mm, outward triangles, and a summary."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.formats.facewarehouse import EXPRESSION_NAMES
from facerecon_torch.model.importers.imported import (
    LARGEST_FACE,
    SMALLEST_FACE,
    ImportedModel,
    as_model_errors,
    refused,
)
from facerecon_torch.model.importers.linear_parts import outward
from facerecon_torch.model.named_weights import NEUTRAL

__all__ = ["assemble_bilinear", "expression_names", "plausible_unit", "rows_with_moments"]

_POWERS = range(-4, 5)


def assemble_bilinear(
    file: Path,
    factors: dict[str, Tensor],
    triangles: Tensor,
    uv: Tensor | None,
    *,
    names: Sequence[str],
    topology_name: str,
    mm_per_unit: float | None,
    summary: dict[str, object],
    tables: dict[str, Tensor] | None = None,
) -> ImportedModel:
    """The model with its core in mm.

    Args:
        file: The file, for errors.
        factors: core, identity_rows and expression_rows.
        triangles: The triangles of the mesh.
        uv: Texture coordinates of the vertices.
        names: Names of the rows of U_exp.
        topology_name: Name of the mesh in the lists of landmark vertices.
        mm_per_unit: The unit; by default the power of ten that makes the mean face 80 to 600 mm long.
        summary: Further entries of the summary.
        tables: Tables of a FaceTopology that the file has.

    Raises:
        ModelFileError: No unit gives a plausible face, or ImportedModel refuses the arrays.
    """
    with as_model_errors(file):
        mean = _mean_face(factors)
        unit = plausible_unit(file, mean) if mm_per_unit is None else float(mm_per_unit)
        core = factors["core"] if unit == 1 else factors["core"] * unit
        triangles, turned = outward(file, unit * mean, triangles)
        counts: dict[str, object] = {
            "vertices": len(core),
            "triangles": len(triangles),
            "triangles_turned": turned,
            "identity_rank": core.shape[2],
            "expression_rank": core.shape[3],
            "mm_per_unit": unit,
            "unit_from": "the size of the mean face" if mm_per_unit is None else "the format",
        }
        return ImportedModel(
            kind="bilinear",
            factors={**factors, "core": core},
            triangles=triangles,
            uv=None if uv is None else uv.to(core.dtype),
            expression_names=tuple(names),
            topology_name=topology_name,
            summary={**counts, **summary},
            tables=tables or {},
        )


def expression_names(count: int) -> tuple[str, ...]:
    """The names of the rows of U_exp, the neutral face first: FaceWarehouse's for 47 rows, else numbers."""
    if count == len(EXPRESSION_NAMES):
        return (NEUTRAL, *EXPRESSION_NAMES[1:])
    return (NEUTRAL, *(f"expression_{k}" for k in range(1, count)))


def rows_with_moments(mean: Float[Tensor, "n"], variance: Float[Tensor, "n"]) -> Float[Tensor, "rows n"]:
    """2 n uncorrelated rows with this mean and (population) variance: mean +- sqrt(n variance_k) e_k.

    They replace the rows of U_id if a file has only their statistics.
    """
    steps = torch.diag((len(mean) * variance).sqrt())
    return torch.cat([mean + steps, mean - steps])


def _mean_face(factors: dict[str, Tensor]) -> Float[Tensor, "vertices 3"]:
    people, faces = (factors[name].mean(dim=0) for name in ("identity_rows", "expression_rows"))
    return ((factors["core"] @ faces) @ people).to(torch.float64)


def plausible_unit(file: Path, mean: Float[Tensor, "vertices 3"]) -> float:
    """mm per unit: the power of ten that makes the mean face 80 to 600 mm long. Raises ModelFileError."""
    longest = float((mean.amax(dim=0) - mean.amin(dim=0)).max())
    fitting = [10.0**power for power in _POWERS if SMALLEST_FACE <= longest * 10.0**power <= LARGEST_FACE]
    if not fitting:
        expected = f"{SMALLEST_FACE:g} to {LARGEST_FACE:g} mm for some power of ten as the unit (give mm_per_unit)"
        raise refused(file, "length of the mean face", expected, f"{longest:.6g} units")
    return fitting[0]
