"""The faces of a run in buckets by subject, on the disk: the faces of a subject are in one bucket, however far apart
they are in the run.

The rows are read in runs of some ten thousand. Each run is sorted by bucket and written as one Arrow file with a record
batch per bucket, so that a bucket is read from all files without the others. Memory holds one run or one bucket.
"""

import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

__all__ = ["bucket_count", "subject_buckets"]

_ROWS = 32_768  # of a run, and of a bucket on average: about 150 MB
_READ = 4096  # rows at a time


def bucket_count(faces: int) -> int:
    """The number of buckets for so many faces."""
    return max(1, -(-faces // _ROWS))


@contextmanager
def subject_buckets(parts: Iterable[Path], folder: Path, buckets: int) -> Iterator[Callable[[int], pa.Table]]:
    """A function that gives the rows of a bucket, by subject and then by input; its files are removed at the end.

    Args:
        parts: tables of faces. Rows without subject are left out, and all but the first face of an image.
        folder: for the files.
        buckets: of `bucket_count`.
    """
    files: list[Path] = []
    folder.mkdir(parents=True, exist_ok=True)
    schema: Any = None
    try:
        for rows in _runs(parts):
            files.append(folder / f".{uuid.uuid4().hex}.part")
            schema = rows.schema
            _write_run(rows, files[-1], buckets)

        def bucket(number: int) -> pa.Table:
            table = pa.Table.from_batches([_read_batch(file, number) for file in files], schema)
            return table.sort_by([("subject", "ascending"), ("input", "ascending")])

        yield bucket
    finally:
        for file in files:
            file.unlink(missing_ok=True)


def _runs(parts: Iterable[Path]) -> Iterator[pa.Table]:
    """The rows with a subject in tables of at most _ROWS rows; at least one table, which may be empty."""
    waiting: list[Any] = []
    count = written = 0
    for batch in _batches(parts):
        if count + len(batch) > _ROWS:
            yield pa.Table.from_batches(waiting)
            waiting, count, written = [], 0, written + 1
        waiting.append(batch)
        count += len(batch)
    if count or not written:
        yield pa.Table.from_batches(waiting)


def _batches(parts: Iterable[Path]) -> Iterator[Any]:
    for part in parts:
        with pq.ParquetFile(part) as opened:
            for batch in opened.iter_batches(batch_size=_READ, use_threads=False):
                subject = batch.column("subject")
                named = pc.and_(pc.equal(batch.column("face"), 0), pc.not_equal(subject, ""))  # null: no subject
                yield batch.filter(named)


def _write_run(rows: pa.Table, file: Path, buckets: int) -> None:
    numbers = _numbers(rows.column("subject").combine_chunks(), buckets)
    order = np.argsort(numbers, kind="stable")
    (batch,) = rows.take(pa.array(order)).combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], rows.schema)]
    ends = np.searchsorted(numbers[order], np.arange(buckets + 1))
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, rows.schema, options=options) as writer:
        for first, end in zip(ends[:-1].tolist(), ends[1:].tolist()):
            writer.write_batch(batch.slice(first, end - first))


def _numbers(subjects: Any, buckets: int) -> Any:
    """The bucket of every row, from its subject alone."""
    encoded = subjects.dictionary_encode()
    names = [zlib.crc32(name.encode()) % buckets for name in encoded.dictionary.to_pylist()]
    return np.array(names, dtype=np.int64)[encoded.indices.to_numpy()]


def _read_batch(file: Path, number: int) -> Any:
    with pa.OSFile(str(file), "rb") as source, pa.ipc.open_file(source) as opened:
        return opened.get_batch(number)
