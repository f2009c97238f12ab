"""The end of a complete run: its invariant is checked, and files of all shards are made from its tables.

Whatever needs the table of the whole run belongs into `finish_run`.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from facerecon_torch.commands.infer.parts import Parts, RunCounts
from facerecon_torch.commands.infer.plan import Plan
from facerecon_torch.errors import DataFileError
from facerecon_torch.files import replacing
from facerecon_torch.formats.face_document import PARAMETERS, part_files

__all__ = ["CSV", "count_run", "finish_run"]

CSV = "parameters.csv"


def count_run(parts: Parts, plan: Plan) -> RunCounts | None:
    """Inputs by status of a run, read from its tables; None where some shard is not committed yet."""
    total = RunCounts()
    for shard in range(plan.shards):
        counts = parts.counts(shard)
        if counts is None:
            return None
        total.add(counts)
    if total.inputs != plan.inputs:
        raise DataFileError(f"{plan.file}: expected an outcome for each of {plan.inputs} inputs; got {total.line()}")
    return total


def finish_run(output: Path, formats: tuple[str, ...]) -> None:
    """Make the files that need the table of the whole run."""
    if "csv" in formats:
        _write_csv(output)


def _write_csv(output: Path) -> None:
    """parameters.csv: numbers and texts as they are, lists and structs as JSON."""
    with replacing(output / CSV) as aside:
        writer = None
        for part in part_files(output / PARAMETERS):
            table = _flat(pq.read_table(part))
            if writer is None:
                writer = pa.csv.CSVWriter(aside, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()


def _flat(table: Any) -> Any:
    columns = {}
    for name in table.column_names:
        column = table.column(name)
        if pa.types.is_nested(column.type):
            column = pa.array([json.dumps(value) for value in column.to_pylist()], pa.string())
        elif pa.types.is_boolean(column.type):
            column = pc.cast(column, pa.string())
        columns[name] = column
    return pa.table(columns)
