"""FLAME (Max Planck Institute): generic_model.pkl, or the same arrays in an .npz, in metres.

    v_template [V, 3] | shapedirs [V, 3, identity + expression] | f [T, 3] from 0

shapedirs are scaled to standard deviations: 300 of identity, then 100 of expression in the published model. Jaw, neck
and eyes rotate about joints in FLAME. A linear model has no such pose: they stay at rest, with the mouth closed.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from facerecon_torch.formats.npz_file import read_npz
from facerecon_torch.model.importers.imported import ImportedModel, as_model_errors, refused
from facerecon_torch.model.importers.linear_parts import Array, LinearParts, assemble
from facerecon_torch.model.importers.restricted_pickle import plain_array, read_restricted_pickle

__all__ = ["read_flame"]

COMPONENTS = {400: 300, 150: 100}  # columns of shapedirs -> those of identity, in the published models
MM_PER_UNIT = 1000.0


def read_flame(
    path: str | os.PathLike[str],
    *,
    split: int | None = None,
    n_identity: int | None = None,
    n_expression: int | None = None,
) -> ImportedModel:
    """The model at rest; alpha and beta are FLAME's betas and expression weights, both of variance 1.

    Args:
        path: The .pkl file, which is read without running it, or an .npz file.
        split: Number of identity columns in shapedirs; by default 300 of 400 and 100 of 150.
        n_identity: Largest number of identity columns.
        n_expression: Largest number of expression columns.

    Raises:
        ModelFileError: The file is damaged, names code, or lacks an array.
    """
    file = Path(path)
    arrays = _arrays(file)
    template = _table(file, "v_template", arrays, (None, 3), "f")
    directions = _table(file, "shapedirs", arrays, (len(template), 3, None), "f")
    triangles = _table(file, "f", arrays, (None, 3), "iu")
    total = directions.shape[2]
    border = COMPONENTS.get(total) if split is None else split
    if border is None or not 0 < border <= total:
        raise refused(file, "shapedirs", f"{sorted(COMPONENTS)} columns, or split in 1..{total}", f"split {border}")
    parts = LinearParts(
        mean=template,
        triangles=triangles,
        identity=directions[..., :border],
        expression=directions[..., border:],
        identity_variance=np.ones(border),
        expression_variance=np.ones(total - border),
        notes={"left_out": "pose: jaw, neck and eyes stay at rest"},
    )
    return assemble(
        file,
        parts,
        unit_mm=MM_PER_UNIT,
        topology_name=f"flame_{len(template)}",
        n_identity=n_identity,
        n_expression=n_expression,
    )


def _arrays(file: Path) -> dict[str, Any]:
    with as_model_errors():
        if file.suffix.lower() == ".npz":
            return dict(read_npz(file))
        if file.suffix.lower() != ".pkl":
            raise refused(file, "name", "a name that ends in .pkl or .npz", repr(file.name))
        return read_restricted_pickle(file)


def _table(file: Path, name: str, arrays: dict[str, Any], shape: tuple[int | None, ...], kinds: str) -> Array:
    if name not in arrays:
        raise refused(file, name, "an array of that name", f"only {', '.join(sorted(arrays))[:200]}")
    value = arrays[name]
    array = value if isinstance(value, np.ndarray) else plain_array(file, name, value)
    fits = array.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, array.shape))
    if not fits or array.dtype.kind not in kinds or array.shape[0] == 0:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        kind = "numbers" if kinds == "f" else "whole numbers"
        raise refused(file, name, f"{kind} of shape [{wanted}]", f"{array.dtype} {array.shape}")
    return array
