"""The tables subjects/part-NNNNN.parquet: the faces of every subject with one identity, beta and camera per picture.

They are made from the tables of faces once all shards are committed, and have their columns, with those of
`JointIdentity` behind them. A part is a bucket of subjects; it is written aside and renamed, and what stands is not
made again. Shards that are made again remove all parts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock
from torch import Tensor

from facerecon_torch.cascade.joint_columns import join_columns
from facerecon_torch.cascade.reconstruction import KnownSize
from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.commands.infer.plan import SUBJECTS
from facerecon_torch.commands.infer.subjects.spill import bucket_count, subject_buckets
from facerecon_torch.commands.own_files import is_own, require_own
from facerecon_torch.export.face_table import solved_columns
from facerecon_torch.files import replacing
from facerecon_torch.formats.face_document import PARAMETERS, part_files, part_name
from facerecon_torch.structures import Camera, FaceParameters

__all__ = ["SubjectCounts", "join_subjects", "remove_subjects"]

_FORMAT = "subjects 1"
_MADE_FROM = b"facerecon_made_from"
_TOGETHER = 2048  # faces that are solved at once; more of one subject are solved together all the same
_MEASURES = (
    ("subject_pictures", pa.int64()),
    ("subject_distance_mm", pa.float64()),
    ("subject_spread_mm", pa.float64()),
    ("subject_stranger", pa.bool_()),
    ("subject_mixed", pa.bool_()),
)


@dataclass
class SubjectCounts:
    """The counts of the tables of subjects.

    Attributes:
        subjects: people.
        faces: their pictures.
        mixed: people whose pictures are of several people.
        strangers: pictures that are not of the others' person.
    """

    subjects: int = 0
    faces: int = 0
    mixed: int = 0
    strangers: int = 0

    def line(self) -> str:
        """Such as `3 subjects in 12 pictures, 1 of them mixed, 2 strangers`."""
        people = f"{self.subjects} subjects in {self.faces} pictures"
        return f"{people}, {self.mixed} of them mixed, {self.strangers} strangers"


def join_subjects(
    output: Path, reconstructor: FaceReconstructor, size: KnownSize, *, fingerprint: str, faces: int
) -> SubjectCounts:
    """Make the tables of subjects of a run whose shards are all committed, as far as they are missing.

    Args:
        output: the folder of the run.
        reconstructor: that made the faces.
        size: of the faces, where it is known.
        fingerprint: of the settings of the run.
        faces: of the run.

    Raises:
        FileExistsError: names of the tables are taken by files of somebody else.
        OSError: the disk is full; what is made stays.
    """
    folder, buckets = output / SUBJECTS, bucket_count(faces)
    made_from = f"{_FORMAT}, {fingerprint}, {faces} faces in {buckets} parts".encode()
    require_own(folder.glob("part-*.parquet"))
    with FileLock(output / ".subjects.lock"):
        for left in folder.glob(".*.part"):
            left.unlink(missing_ok=True)  # of a run that was killed
        files = [folder / part_name(number) for number in range(buckets)]
        for other in set(part_files(folder)) - set(files):
            other.unlink()
        missing = [number for number, file in enumerate(files) if not _is_made(file, made_from)]
        if missing:
            parts = part_files(output / PARAMETERS)
            schema = _schema(pq.read_schema(parts[0]), made_from)
            with subject_buckets(parts, folder, buckets) as bucket:
                for number in missing:
                    _write_part(bucket(number), files[number], schema, reconstructor, size)
        return _count(files)


def remove_subjects(output: Path) -> None:
    """Remove the tables of subjects, because the faces that they were made from change."""
    for part in filter(is_own, part_files(output / SUBJECTS)):
        part.unlink(missing_ok=True)


def _is_made(file: Path, made_from: bytes) -> bool:
    try:
        return (pq.read_schema(file).metadata or {}).get(_MADE_FROM) == made_from
    except (OSError, pa.ArrowException):
        return False


def _schema(faces: Any, made_from: bytes) -> Any:
    metadata = {**faces.metadata, b"facerecon_format": _FORMAT.encode(), _MADE_FROM: made_from}
    return pa.schema([*faces, *(pa.field(name, kind) for name, kind in _MEASURES)], metadata=metadata)


def _write_part(rows: Any, file: Path, schema: Any, model: FaceReconstructor, size: KnownSize) -> None:
    with replacing(file, flush=True) as aside, pq.ParquetWriter(aside, schema, compression="zstd") as writer:
        if not len(rows):
            writer.write_table(schema.empty_table())
        for people in _whole_subjects(rows):
            writer.write_table(_joined(people, schema, model, size))


def _whole_subjects(rows: Any) -> Iterator[Any]:
    """Rows that are sorted by subject in tables of about _TOGETHER rows, none of which parts a subject."""
    names = rows.column("subject").to_numpy()
    ends = [*(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist(), len(names)] if len(names) else []
    first = 0
    for end, following in zip(ends, [*ends[1:], None]):
        if following is None or following - first > _TOGETHER:
            yield rows.slice(first, end - first)
            first = end


def _joined(rows: Any, schema: Any, model: FaceReconstructor, size: KnownSize) -> Any:
    """The rows with one identity per subject; the only picture of a subject keeps its row."""
    subject = torch.from_numpy(rows.column("subject").combine_chunks().dictionary_encode().indices.to_numpy().copy())
    solved = join_columns(_tensors(rows), subject.long(), model, size=size)
    solved = {name: values.cpu() for name, values in solved.items()}
    camera = Camera(
        rotation=solved["rotation"].reshape(-1, 3, 3), scale=solved["scale"], translation=solved["translation"],
        degenerate=solved["degenerate"],
    )  # fmt: skip
    columns = solved_columns(
        FaceParameters(solved["alpha"], solved["beta"]), camera, solved["expression_weights"],
        solved["landmarks_3d"], solved["projected_2d"], schema,
    )  # fmt: skip
    n, names = len(rows), rows.schema.names
    again = pa.table([columns.get(name, rows.column(name)) for name in names], schema=rows.schema)
    chosen = np.arange(n) + n * (solved["subject_pictures"].numpy() > 1)
    merged = pa.concat_tables([rows, again]).take(pa.array(chosen))
    measures = [pa.array(solved[name].numpy()).cast(kind) for name, kind in _MEASURES]
    return pa.table([*merged.columns, *measures], schema=schema)


def _tensors(rows: Any) -> dict[str, Tensor]:
    """The columns that a joint identity is solved from."""
    n = len(rows)

    def numbers(values: Any) -> Tensor:
        while pa.types.is_nested(values.type):
            values = values.flatten()
        return torch.from_numpy(np.array(values.to_numpy(zero_copy_only=False), dtype=np.float64))  # null -> NaN

    camera = rows.column("camera").combine_chunks()
    columns = {name: rows.column(name).combine_chunks() for name in ("alpha", "beta", "landmarks_2d")}
    tensors = {name: numbers(values).reshape(n, -1) for name, values in columns.items()}
    tensors["landmarks_2d"] = tensors["landmarks_2d"].reshape(n, -1, 2)
    tensors["rotation"] = numbers(camera.field("rotation")).reshape(n, 9)
    tensors["degenerate"] = torch.from_numpy(camera.field("degenerate").to_numpy(zero_copy_only=False))
    return tensors


def _count(files: Sequence[Path]) -> SubjectCounts:
    """The counts of tables of subjects, one after the other; a subject is in one of them."""
    counts = SubjectCounts()
    for file in files:
        table = pq.read_table(file, columns=["subject", "subject_stranger", "subject_mixed"])
        people = table.group_by("subject").aggregate([("subject_mixed", "any")])
        counts.subjects += len(people)
        counts.faces += len(table)
        counts.mixed += sum(people.column("subject_mixed_any").to_pylist())
        counts.strangers += sum(table.column("subject_stranger").to_pylist())
    return counts
