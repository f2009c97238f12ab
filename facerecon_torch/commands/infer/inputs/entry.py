"""One input of a run, and the Arrow columns in which a plan holds many."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow as pa

from facerecon_torch.files import path_text
from facerecon_torch.landmarks.detector import Box

__all__ = ["PLAN_SCHEMA", "Entry", "entries_of", "file_entry", "plan_rows", "record_batch"]

PLAN_SCHEMA = pa.schema(
    [
        ("path", pa.binary()),  # bytes of the file's name, which need not be text
        ("id", pa.string()),
        ("member", pa.string()),
        ("offset", pa.int64()),
        ("frame", pa.int64()),
        ("time", pa.float64()),
        ("size", pa.int64()),
        ("changed", pa.int64()),
        ("problem", pa.string()),
        ("subject", pa.string()),
        ("box", pa.list_(pa.float64())),
        ("points", pa.list_(pa.float64())),
    ]
)
_FIELDS = attrgetter(*PLAN_SCHEMA.names)


@dataclass(frozen=True, slots=True)
class Entry:
    """One input: an image file, a member of a tar file, a frame of a video, or something that turns out to be none.

    Attributes:
        path: of the file.
        id: a name from a manifest; None: the path.
        member: name inside a tar file.
        offset: of the member's bytes in the tar file.
        frame: number of the frame in a video, from 0.
        time: of the frame, seconds.
        size: bytes of the image file or member; None where there is none.
        changed: time of the file's last change, ns; None where it is unknown.
        problem: what is wrong already when inputs are listed.
        subject: the person, from a manifest.
        box: of the face that is meant, px, from a manifest.
        points: its landmarks x0, y0, x1, ..., px, from a manifest.
        number: place among the inputs of the run, from 0.
    """

    path: str
    id: str | None = None
    member: str | None = None
    offset: int | None = None
    frame: int | None = None
    time: float | None = None
    size: int | None = None
    changed: int | None = None
    problem: str | None = None
    subject: str | None = None
    box: Box | None = None
    points: Sequence[float] | None = None
    number: int = -1

    @property
    def place(self) -> Path:
        """The path with the member or frame behind it: the input's name in messages and tables, and the name by which
        landmark files are found."""
        if self.member is not None:
            return Path(self.path, self.member)
        return Path(self.path) if self.frame is None else Path(self.path, f"frame{self.frame:06d}")

    @property
    def text(self) -> str:
        """`place` as text."""
        return path_text(self.place)

    @property
    def name(self) -> str:
        """The id from a manifest, else the place."""
        return self.text if self.id is None else self.id


def file_entry(path: str, **more: object) -> Entry:
    """An entry for a file with its size and time of change, as far as the system tells them."""
    try:
        about = os.stat(path)
    except (OSError, ValueError):  # reading says what is wrong
        return Entry(path, **more)  # type: ignore[arg-type]
    return Entry(path, size=about.st_size, changed=about.st_mtime_ns, **more)  # type: ignore[arg-type]


def plan_rows(entries: Sequence[Entry]) -> list[tuple[Any, ...]]:
    """The values of the entries in the order of `PLAN_SCHEMA`."""
    return [_FIELDS(entry) for entry in entries]


def record_batch(rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
    """Rows of `plan_rows` as rows of `PLAN_SCHEMA`."""
    columns = []
    for field, values in zip(PLAN_SCHEMA, zip(*rows)):
        if field.name == "path":
            values = tuple(os.fsencode(value) for value in values)
        empty = not any(value is not None for value in values)
        columns.append(pa.nulls(len(rows), field.type) if empty else pa.array(values, field.type))
    return pa.record_batch(columns, schema=PLAN_SCHEMA)


def entries_of(batch: pa.RecordBatch, first: int) -> list[Entry]:
    """The entries of rows of `PLAN_SCHEMA`; `first` is the number of the first one."""
    rows = batch.to_pylist()
    for k, row in enumerate(rows):
        box = row["box"]
        row |= {"path": os.fsdecode(row["path"]), "box": None if box is None else tuple(box), "number": first + k}
    return [Entry(**row) for row in rows]
