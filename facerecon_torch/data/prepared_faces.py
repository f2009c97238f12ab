"""A prepared set as a `FaceSet` for training."""

import logging
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from facerecon_torch.data.face_set import FaceSet
from facerecon_torch.data.prepared import PreparedSet, load_prepared
from facerecon_torch.data.specs import RecordedScans
from facerecon_torch.errors import DataFileError
from facerecon_torch.model.base import FaceModel

__all__ = ["load_prepared_faces"]

_log = logging.getLogger(__name__)


def load_prepared_faces(data: RecordedScans, model: FaceModel) -> FaceSet:
    """The samples of a prepared set that `data` selects, with M and g* of the registration.

    Landmarks are NaN where none were found.

    Args:
        data: folder and selection.
        model: the model that the set was prepared with.

    Raises:
        DataFileError: a folder that is not a prepared set.
        ValueError: a set that was prepared with another model, or no sample that is left.

    Example:
        >>> faces = load_prepared_faces(RecordedScans(name="bosphorus", root="prepared"), load_default_face())
    """
    prepared = load_prepared(_prepared_folder(data))
    if prepared.model_sha256 != model.sha256:
        raise ValueError(
            f"{prepared.folder} was prepared with the model {prepared.model_sha256[:12]}; this run's model is "
            f"{model.sha256[:12]}. Give the same model.path, or prepare again"
        )
    rows = [k for k in range(len(prepared)) if _is_selected(data, prepared, k)]
    if not rows:
        kinds = dict(Counter(prepared.kinds))
        raise ValueError(f"data asks for nothing that {prepared.folder} holds; it holds {kinds}")
    _log.info("%s: %d of the %d prepared samples", data.name, len(rows), len(prepared))
    selected = torch.tensor(rows)
    return FaceSet(
        name=data.name,
        images=tuple(prepared.images[k] for k in rows),
        subjects=_numbers([prepared.subjects[k] for k in rows]),
        landmarks=prepared.landmarks[selected],
        meshes=prepared.meshes[selected],
        parameters=prepared.parameters[selected],
        covered=prepared.covered[selected],
        kinds=tuple(f"{prepared.kinds[k]}_{prepared.codes[k]}".rstrip("_") for k in rows),
    )


def _prepared_folder(data: RecordedScans) -> Path:
    root = Path(data.require_root())
    for folder in (root, root / "prepared"):
        if (folder / "set.json").is_file():
            return folder
    names = sorted(p.name for p in root.iterdir())[:5] if root.is_dir() else []
    raise DataFileError(
        f"{root}: expected a prepared set (set.json); found {', '.join(names) or 'no such folder, or nothing'}. "
        f"A data set as delivered is prepared once: facerecon prepare data={data.name} data.root={root} output=PREPARED"
    )


def _is_selected(data: RecordedScans, prepared: PreparedSet, k: int) -> bool:
    return (
        (data.classes is None or prepared.kinds[k] in data.classes)
        and (data.subjects is None or prepared.subjects[k] in data.subjects)
        and not set(data.without_flags) & set(prepared.flags[k])
    )


def _numbers(subjects: list[str]) -> Tensor:
    """The place of every subject in the sorted list of subjects."""
    place = {name: k for k, name in enumerate(sorted(set(subjects)))}
    return torch.tensor([place[name] for name in subjects])
