"""A prepared set on disk: registered recordings of a data set, ready for training.

    set.json              format, version, model, spec, one entry per sample, failures
    tables.safetensors    parameters, poses, meshes, masks, landmarks, measures; rows in the order of set.json
    crops/NAME.jpg        the photograph around the face

set.json is written last and marks the set as complete. Rows are sorted by name, so that the bytes do not depend on how
the recordings were divided into shards.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from facerecon_torch.data.face_set import FaceSet
from facerecon_torch.data.specs import RecordedScans
from facerecon_torch.errors import DataFileError
from facerecon_torch.files import write_json
from facerecon_torch.formats.checked_columns import load_columns, save_columns
from facerecon_torch.formats.json_file import read_json, require_entries
from facerecon_torch.landmarks.scheme import N_INNER, N_LANDMARKS
from facerecon_torch.model.base import FaceModel
from facerecon_torch.runtime.sharded_job import SHARDS, Shard, join_columns
from facerecon_torch.structures import FaceParameters

__all__ = [
    "CROPS",
    "HEADER",
    "MEASURE",
    "PreparedSet",
    "is_complete",
    "load_prepared",
    "save_prepared",
    "load_prepared_faces",
]

FORMAT = "facerecon_torch.prepared"
VERSION = 2
_WITHOUT_CHECKSUM = 1  # version whose tables carry no checksum
HEADER, _TABLES = "set.json", "tables.safetensors"
CROPS = "crops"
MEASURE = "measure."
"""Prefix of the columns that hold measures."""
_COLUMNS = ("identity", "expression", "rotation", "translation", "meshes", "covered", "landmarks")
_TAILS = {"rotation": (3, 3), "translation": (3,), "landmarks": (N_LANDMARKS, 2)}
_KEYS = {"model_sha256": str, "spec": dict, "samples": object, "failures": dict}
_ENTRY = {"name": str, "subject": str, "kind": str, "code": str, "image": str, "flags": list}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PreparedSet:
    """A complete set. Rows of all tensors are samples, sorted by name.

    `landmarks` are the 66 detected points in px of the crop `images` ((0, 0) at the centre of the first pixel); rows
    are NaN where none were found. `parameters` describe S*; `rotation` and `translation` (mm) lead from the model frame
    to the scan's: scan = R v + T. `meshes` are M in mm in the model frame, `covered` marks their vertices that lie on
    measured surface. `measures` hold one number per sample (mm where not said otherwise). `failures` maps the names of
    recordings without a sample to the reason.
    """

    folder: Path
    model_sha256: str
    names: tuple[str, ...]
    subjects: tuple[str, ...]
    kinds: tuple[str, ...]
    codes: tuple[str, ...]
    images: tuple[Path, ...]
    landmarks: Float[Tensor, "n 66 2"]
    parameters: FaceParameters
    rotation: Float[Tensor, "n 3 3"]
    translation: Float[Tensor, "n 3"]
    meshes: Float[Tensor, "n v 3"]
    covered: Bool[Tensor, "n v"]
    measures: dict[str, Tensor]
    flags: tuple[tuple[str, ...], ...]
    failures: dict[str, str]
    spec: dict[str, Any]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def convention(self) -> str:
        """Of the landmarks; sets prepared before it was written had iBUG's."""
        asked = self.spec.get("landmarks")
        return str(asked["convention"]) if isinstance(asked, dict) and "convention" in asked else "ibug"

    @property
    def has_landmarks(self) -> Bool[Tensor, "n"]:
        """Whether landmarks of each sample were found: the inner ones at least, the contour may be missing (NaN)."""
        return torch.isfinite(self.landmarks[:, :N_INNER]).all(dim=-1).all(dim=-1)


def save_prepared(folder: str | Path, shards: Sequence[Shard], *, model_sha256: str, spec: dict[str, Any]) -> None:
    """Write a set from its shards, whose crops lie in the folder already.

    Args:
        folder: folder of the set.
        shards: `columns` as in tables.safetensors (identity, expression, rotation, translation, meshes, covered,
            landmarks, measure.NAME); `document` with `samples` (an entry with name, subject, kind, code, image and
            flags for each row) and `failures` (name -> reason).
        model_sha256: hash of the face model that the parameters belong to.
        spec: what the bytes of the set depend on.

    Raises:
        DataFileError: no sample, a name that is there twice, or columns that do not fit the entries.
        OSError: the disk is full.
    """
    folder = Path(folder)
    entries = [entry for shard in shards for entry in shard.document["samples"]]
    failures = {name: reason for shard in shards for name, reason in shard.document["failures"].items()}
    order = sorted(range(len(entries)), key=lambda row: str(entries[row]["name"]))
    entries = [entries[row] for row in order]
    twice = sorted({a["name"] for a, b in pairwise(entries) if a["name"] == b["name"]})
    if twice:
        raise DataFileError(f"{folder}: every recording must be there once; got {', '.join(twice[:5])} again")
    if not entries:
        name, reason = next(iter(sorted(failures.items())), ("none", "there was nothing to prepare"))
        raise DataFileError(
            f"{folder}: expected at least one sample; all {len(failures)} recordings failed, {name}: {reason}"
        )
    columns = {name: values[torch.tensor(order)] for name, values in _joined(shards, len(entries)).items()}
    _require_columns(folder / _TABLES, columns, len(entries))
    save_columns(folder / _TABLES, columns)
    document = {
        "format": FORMAT,
        "version": VERSION,
        "model_sha256": model_sha256,
        "spec": spec,
        "samples": entries,
        "failures": dict(sorted(failures.items())),
    }
    write_json(folder / HEADER, document)


def load_prepared(folder: str | Path) -> PreparedSet:
    """A complete set.

    Args:
        folder: folder of the set.

    Raises:
        DataFileError: no set, one that is not complete, or a damaged one; says what was expected and what came.

    Example:
        >>> prepared = load_prepared("prepared/bosphorus")
        >>> prepared.meshes[prepared.has_landmarks]
    """
    folder = Path(folder)
    document = _read_header(folder)
    columns = _read_columns(folder / _TABLES, checked=document["version"] != _WITHOUT_CHECKSUM)
    entries = document["samples"]
    names, subjects, kinds, codes, images, flags = ([entry[key] for entry in entries] for key in _ENTRY)
    _require_columns(folder / _TABLES, columns, len(entries))
    return PreparedSet(
        folder=folder,
        model_sha256=document["model_sha256"],
        names=tuple(names),
        subjects=tuple(subjects),
        kinds=tuple(kinds),
        codes=tuple(codes),
        images=tuple(folder / CROPS / name for name in images),
        landmarks=columns["landmarks"],
        parameters=FaceParameters(identity=columns["identity"], expression=columns["expression"]),
        rotation=columns["rotation"],
        translation=columns["translation"],
        meshes=columns["meshes"],
        covered=columns["covered"],
        measures={name[len(MEASURE) :]: values for name, values in columns.items() if name.startswith(MEASURE)},
        flags=tuple(tuple(row) for row in flags),
        failures=document["failures"],
        spec=document["spec"],
    )


def is_complete(folder: str | Path) -> bool:
    """Whether the folder holds a complete set."""
    return (Path(folder) / HEADER).is_file()


def _joined(shards: Sequence[Shard], count: int) -> dict[str, Tensor]:
    columns = join_columns(shards)
    wrong = {name: len(values) for name, values in columns.items() if len(values) != count}
    if wrong:
        raise DataFileError(f"every column must have {count} rows, one per entry; got {wrong}")
    return columns


def _read_header(folder: Path) -> dict[str, Any]:
    path = folder / HEADER
    if not path.is_file():
        state = "shards of a set that is not complete: run prepare again" if (folder / SHARDS).is_dir() else "none"
        raise DataFileError(f"{path}: expected the set.json of a prepared set; got {state}")
    document = read_json(path)
    got = (document.get("format"), document.get("version"))
    if got not in ((FORMAT, VERSION), (FORMAT, _WITHOUT_CHECKSUM)):
        raise DataFileError(f"{path}: expected {FORMAT} of version {VERSION}; got {got}")
    require_entries(document, _KEYS, path)
    if not isinstance(document["samples"], list):
        raise DataFileError(f"{path}: samples: expected a list; got {type(document['samples']).__name__}")
    for k, entry in enumerate(document["samples"]):
        require_entries(entry, _ENTRY, f"{path}: samples: {k}")
    return document


def _read_columns(path: Path, *, checked: bool) -> dict[str, Tensor]:
    if checked:
        return load_columns(path)[0]
    if not path.is_file():
        raise DataFileError(f"{path}: expected a file of a prepared set; got nothing")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise DataFileError(f"{path}: expected a complete safetensors file; {error}") from error


def _require_columns(path: Path, columns: dict[str, Tensor], count: int) -> None:
    missing = sorted(set(_COLUMNS) - set(columns))
    if missing:
        raise DataFileError(f"{path}: expected the columns {', '.join(_COLUMNS)}; {', '.join(missing)} are missing")
    wrong = {name: tuple(values.shape) for name, values in columns.items() if values.shape[:1] != (count,)}
    wrong |= {name: tuple(columns[name].shape) for name, tail in _TAILS.items() if columns[name].shape[1:] != tail}
    vertices = columns["meshes"].shape[1:]
    if wrong or columns["covered"].shape[1:] != vertices[:1] or vertices[1:] != (3,):
        raise DataFileError(f"{path}: expected columns of {count} rows, one per sample of set.json; got {wrong}")


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
    kinds = dict(Counter(prepared.kinds))
    for key, asked, held in (("classes", data.classes, kinds), ("subjects", data.subjects, set(prepared.subjects))):
        unknown = [name for name in asked or () if name not in held]
        if unknown:
            raise ValueError(f"data.{key} must be among those of {prepared.folder}: {_few(held)}; got {unknown}")
    if not rows:
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
        convention=prepared.convention,
        kinds=tuple(f"{prepared.kinds[k]}_{prepared.codes[k]}".rstrip("_") for k in rows),
    )


def _few(names: Iterable[str]) -> str:
    """Names for a message, at most twelve."""
    ordered = sorted(names)
    return ", ".join(ordered[:12]) + (f" and {len(ordered) - 12} more" if len(ordered) > 12 else "")


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
