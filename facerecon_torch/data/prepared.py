"""A prepared set on disk: what registration made of the recordings of a data set, ready for training.

    set.json              format, version, model, spec, one entry a sample, failures
    tables.safetensors    parameters, poses, meshes, masks, landmarks, measures; rows in the order of set.json
    crops/NAME.jpg        the photograph around the face

While it is made, every finished part leaves one file in parts/, so that an interrupted run goes on where it stopped.
set.json is written last and marks the set as complete. Rows are sorted by name: the bytes do not depend on the parts.
"""

import errno
import json
import re
import shutil
from collections.abc import Sequence, Sized
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file
from torch import Tensor

from facerecon_torch.errors import DataFileError
from facerecon_torch.files import replacing
from facerecon_torch.structures import FaceParameters

__all__ = [
    "CROPS",
    "PreparedRows",
    "PreparedSet",
    "assemble",
    "is_complete",
    "load_prepared",
    "part_path",
    "read_part",
    "write_part",
]

FORMAT = "facerecon_torch.prepared"
VERSION = 1
_SET, _TABLES, _PARTS = "set.json", "tables.safetensors", "parts"
CROPS = "crops"
_COLUMNS = ("identity", "expression", "rotation", "translation", "meshes", "covered", "landmarks")
_MEASURE = "measure."
_TAILS = {"rotation": (3, 3), "translation": (3,), "landmarks": (66, 2)}
_KEYS = {"format", "version", "model_sha256", "spec", "samples", "failures"}
_ENTRY = ("name", "subject", "kind", "code", "image", "flags")


@dataclass(frozen=True)
class PreparedSet:
    """A complete set. Rows of all tensors are samples, sorted by name.

    `landmarks` are the 66 detected points in px of the crop `images` ((0, 0) at the centre of the first pixel); rows
    of NaN where none were found. `parameters` describe S*; `rotation` and `translation` (mm) lead from the model frame
    to the scan's: scan = R v + T. `meshes` is M in mm in the model frame, `covered` marks its vertices that lie on
    measured surface. `measures` are numbers a sample (mm where not said otherwise); `failures` maps the names of
    recordings that gave no sample to the reason.
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
    spec: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def has_landmarks(self) -> Bool[Tensor, "n"]:
        """Samples whose 66 landmarks were found."""
        return torch.isfinite(self.landmarks).all(dim=-1).all(dim=-1)


@dataclass(frozen=True)
class PreparedRows:
    """Samples of one part, in any order, and the recordings of it that gave none.

    `images` are names of files in crops/. `tables` holds the columns of PreparedSet (`identity`, `expression`,
    `rotation`, `translation`, `meshes`, `covered`, `landmarks`), none where there is no sample. Raises ValueError for
    columns of different length.
    """

    names: tuple[str, ...]
    subjects: tuple[str, ...]
    kinds: tuple[str, ...]
    codes: tuple[str, ...]
    images: tuple[str, ...]
    tables: dict[str, Tensor]
    measures: dict[str, Tensor]
    flags: tuple[tuple[str, ...], ...]
    failures: dict[str, str]

    def __post_init__(self) -> None:
        missing = sorted(set(_COLUMNS) - set(self.tables)) if self.names else []
        if missing:
            raise ValueError(f"tables must hold {', '.join(_COLUMNS)}; {', '.join(missing)} are missing")
        columns: dict[str, Sized] = {
            "subjects": self.subjects,
            "kinds": self.kinds,
            "codes": self.codes,
            "images": self.images,
        }
        columns |= {"flags": self.flags, **self.tables, **self.measures}
        wrong = {name: len(values) for name, values in columns.items() if len(values) != len(self.names)}
        if wrong:
            raise ValueError(f"every column must have {len(self.names)} rows, one a name; got {wrong}")

    @property
    def entries(self) -> list[dict[str, Any]]:
        """One dictionary a sample, as set.json holds it."""
        flags = [list(row) for row in self.flags]
        columns = zip(self.names, self.subjects, self.kinds, self.codes, self.images, flags)
        return [dict(zip(_ENTRY, row)) for row in columns]


def write_part(folder: Path, number: int, rows: PreparedRows) -> Path:
    """Write one part of the set in the making. Returns its path."""
    document = {"entries": rows.entries, "failures": rows.failures}
    tensors = rows.tables | {_MEASURE + name: values for name, values in rows.measures.items()}
    stored = {name: values.detach().cpu().contiguous() for name, values in tensors.items()}
    return _write(part_path(folder, number), save(stored, metadata={"part": json.dumps(document)}))


def read_part(folder: Path, number: int) -> PreparedRows:
    """A finished part. Raises DataFileError where it is damaged."""
    path = part_path(folder, number)
    tensors, document = _read(path, "part")
    entries = document["entries"]
    names, subjects, kinds, codes, images, flags = ([entry[key] for entry in entries] for key in _ENTRY)
    return PreparedRows(
        tuple(names),
        tuple(subjects),
        tuple(kinds),
        tuple(codes),
        tuple(images),
        {name: values for name, values in tensors.items() if not name.startswith(_MEASURE)},
        {name[len(_MEASURE) :]: values for name, values in tensors.items() if name.startswith(_MEASURE)},
        tuple(tuple(row) for row in flags),
        document["failures"],
    )


def part_path(folder: Path, number: int) -> Path:
    """Where a part lies."""
    return Path(folder) / _PARTS / f"{number:06d}.safetensors"


def assemble(folder: Path, numbers: Sequence[int], *, model_sha256: str, spec: dict[str, Any]) -> PreparedSet:
    """Join the parts into a complete set, remove them, and read the set back.

    Raises DataFileError where the parts hold no sample or a name twice.
    """
    parts = [read_part(folder, number) for number in numbers]
    entries = [entry for part in parts for entry in part.entries]
    failures = {name: reason for part in parts for name, reason in part.failures.items()}
    order = sorted(range(len(entries)), key=lambda row: str(entries[row]["name"]))
    names = [entries[row]["name"] for row in order]
    twice = sorted({a for a, b in pairwise(names) if a == b})
    if twice:
        raise DataFileError(f"{folder}: every recording must be there once; got {', '.join(twice[:5])} again")
    if not entries:
        first = next(iter(sorted(failures.items())), ("none", "there was nothing to prepare"))
        raise DataFileError(
            f"{folder}: expected at least one sample; all {len(failures)} recordings failed, {first[0]}: {first[1]}"
        )
    filled = [part for part in parts if part.names]
    tensors = {_MEASURE + name: _joined([p.measures[name] for p in filled], order) for name in _measures(filled)}
    tensors |= {name: _joined([part.tables[name] for part in filled], order) for name in _COLUMNS}
    document = {
        "format": FORMAT,
        "version": VERSION,
        "model_sha256": model_sha256,
        "spec": spec,
        "samples": [entries[row] for row in order],
        "failures": dict(sorted(failures.items())),
    }
    with replacing(folder / _TABLES) as aside:
        _save_file(tensors, aside)
        aside.chmod(part_path(folder, numbers[0]).stat().st_mode)  # safetensors lets only the owner read
    _write(folder / _SET, (json.dumps(document, indent=1) + "\n").encode())
    shutil.rmtree(folder / _PARTS)
    return load_prepared(folder)


def load_prepared(folder: str | Path) -> PreparedSet:
    """Read a complete set. Raises DataFileError, saying what was expected and what came, where there is none or where
    it is damaged."""
    folder = Path(folder)
    document = _document(folder)
    tensors, _ = _read(folder / _TABLES, None)
    entries = document["samples"]
    names, subjects, kinds, codes, images, flags = ([entry[key] for entry in entries] for key in _ENTRY)
    _require_rows(folder / _TABLES, tensors, len(entries))
    return PreparedSet(
        folder=folder,
        model_sha256=document["model_sha256"],
        names=tuple(names),
        subjects=tuple(subjects),
        kinds=tuple(kinds),
        codes=tuple(codes),
        images=tuple(folder / CROPS / name for name in images),
        landmarks=tensors["landmarks"],
        parameters=FaceParameters(identity=tensors["identity"], expression=tensors["expression"]),
        rotation=tensors["rotation"],
        translation=tensors["translation"],
        meshes=tensors["meshes"],
        covered=tensors["covered"],
        measures={name[len(_MEASURE) :]: values for name, values in tensors.items() if name.startswith(_MEASURE)},
        flags=tuple(tuple(row) for row in flags),
        failures=document["failures"],
        spec=document["spec"],
    )


def is_complete(folder: str | Path) -> bool:
    """Whether a set was made here to its end."""
    return (Path(folder) / _SET).is_file()


def _document(folder: Path) -> dict[str, Any]:
    path = folder / _SET
    if not path.is_file():
        begun = "parts of a set that is not complete: run prepare again" if (folder / _PARTS).is_dir() else "none"
        raise DataFileError(f"{path}: expected the set.json of a prepared set; got {begun}")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataFileError(f"{path}: expected a JSON document; {error}") from error
    got = (document.get("format"), document.get("version")) if isinstance(document, dict) else None
    if got != (FORMAT, VERSION):
        raise DataFileError(f"{path}: expected {FORMAT} of version {VERSION}; got {got}")
    if set(document) != _KEYS or not all(set(entry) == set(_ENTRY) for entry in document["samples"]):
        raise DataFileError(f"{path}: expected the keys {', '.join(sorted(_KEYS))}; got {', '.join(sorted(document))}")
    return dict(document)


def _require_rows(path: Path, tensors: dict[str, Tensor], count: int) -> None:
    missing = sorted(set(_COLUMNS) - set(tensors))
    if missing:
        raise DataFileError(f"{path}: expected the columns {', '.join(_COLUMNS)}; {', '.join(missing)} are missing")
    wrong = {name: tuple(values.shape) for name, values in tensors.items() if values.shape[:1] != (count,)}
    vertices = tensors["meshes"].shape[1:]
    wrong |= {n: tuple(tensors[n].shape) for n, tail in _TAILS.items() if tuple(tensors[n].shape[1:]) != tail}
    if wrong or tensors["covered"].shape[1:] != vertices[:1] or vertices[1:] != (3,):
        raise DataFileError(f"{path}: expected columns of {count} rows, one a sample of set.json; got {wrong}")


def _measures(parts: list[PreparedRows]) -> list[str]:
    names = {tuple(sorted(part.measures)) for part in parts}
    if len(names) > 1:
        raise DataFileError(f"every part must hold the same measures; got {sorted(names)}")
    return list(names.pop()) if names else []


def _joined(columns: list[Tensor], order: list[int]) -> Tensor:
    return torch.cat(columns)[torch.tensor(order)]


def _read(path: Path, key: str | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and, where a key is named, the JSON document below it in the file's metadata."""
    if not path.is_file():
        raise DataFileError(f"{path}: expected a file of a prepared set; got nothing")
    try:
        with safe_open(str(path), framework="pt") as file:
            document = json.loads((file.metadata() or {})[key]) if key else {}
            return {name: file.get_tensor(name) for name in file.keys()}, document  # noqa: SIM118
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise DataFileError(f"{path}: expected a complete safetensors file; {error}") from error


def _save_file(tensors: dict[str, Tensor], path: Path) -> None:
    """Straight to the disk: the tables of a large set should not be in memory twice. Raises OSError."""
    try:
        save_file(tensors, str(path))
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error), str(path)) from error


def _write(path: Path, content: bytes) -> Path:
    with replacing(path) as aside:
        aside.write_bytes(content)
    return path
