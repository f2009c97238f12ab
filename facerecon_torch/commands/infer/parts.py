"""The tables of a run: for every shard parameters/part-NNNNN.parquet and quarantine/part-NNNNN.parquet.

A shard is committed when both are there and every input of it stands in exactly one of them. Both are written aside,
flushed and renamed, that of the faces last.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from facerecon_torch.commands.infer.outcomes import OK, Outcome
from facerecon_torch.commands.infer.plan import QUARANTINE, Plan
from facerecon_torch.export.face_table import FaceTable
from facerecon_torch.files import replacing
from facerecon_torch.formats.face_document import PARAMETERS, part_files, part_name

__all__ = ["Parts", "RunCounts", "read_quarantine"]

_VERSION = 1
_SCHEMA = pa.schema(
    [
        ("input", pa.int64()),
        ("id", pa.string()),
        ("path", pa.string()),
        ("frame", pa.int64()),
        ("subject", pa.string()),
        ("status", pa.string()),
        ("stage", pa.string()),
        ("exception", pa.string()),
        ("reason", pa.string()),
        ("size", pa.int64()),
        ("sha256", pa.string()),
    ],
    metadata={"facerecon_format": f"quarantine {_VERSION}"},
)


@dataclass
class RunCounts:
    """Inputs by status, and faces."""

    statuses: Counter[str] = field(default_factory=Counter)
    faces: int = 0

    @property
    def inputs(self) -> int:
        """The inputs with an outcome."""
        return sum(self.statuses.values())

    @property
    def failures(self) -> int:
        """The inputs without faces."""
        return self.inputs - self.statuses[OK]

    def add(self, other: "RunCounts") -> None:
        """Count the inputs and faces of another part too."""
        self.statuses.update(other.statuses)
        self.faces += other.faces

    def line(self) -> str:
        """Such as `ok 180 + no_face 5 = 185 inputs`."""
        listed = [f"{OK} {self.statuses[OK]}"]
        listed += [f"{name} {count}" for name, count in sorted(self.statuses.items()) if name != OK and count]
        return f"{' + '.join(listed)} = {self.inputs} inputs"


class Parts:
    """The tables of the run in a folder."""

    def __init__(self, output: Path, plan: Plan) -> None:
        self._output, self._plan = output, plan

    def faces_file(self, shard: int) -> Path:
        """The table of the faces of a shard."""
        return self._output / PARAMETERS / part_name(shard)

    def quarantine_file(self, shard: int) -> Path:
        """The table of the inputs of a shard without faces."""
        return self._output / QUARANTINE / part_name(shard)

    def commit(self, shard: int, faces: FaceTable, failures: Sequence[Outcome], *, kept: Any = None) -> None:
        """Write the tables of a shard.

        Args:
            shard: its number.
            faces: of the inputs that were done.
            failures: of all inputs without faces.
            kept: rows of the faces of an earlier run, which stay.
        """
        ordered = sorted(failures, key=lambda outcome: outcome.entry.number)
        rows = [_quarantine_row(outcome) for outcome in ordered]
        with replacing(self.quarantine_file(shard), flush=True) as aside:
            pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), aside, compression="zstd")
        faces.save(self.faces_file(shard), beside=kept)

    def counts(self, shard: int) -> RunCounts | None:
        """Inputs by status of a shard, read from its tables; None where it is not committed: a table is missing or
        damaged, or an input has no outcome or two."""
        try:
            done = pq.read_table(self.faces_file(shard), columns=["input"]).column("input").to_pylist()
            failed = pq.read_table(self.quarantine_file(shard), columns=["input", "status"])
        except (OSError, pa.ArrowException):
            return None
        outcomes = sorted([*set(done), *failed.column("input").to_pylist()])
        if outcomes != list(self._plan.numbers(shard)):
            return None
        statuses = Counter({OK: len(set(done))}) + Counter(failed.column("status").to_pylist())
        return RunCounts(statuses, len(done))

    def failed_inputs(self, shard: int) -> list[int]:
        """The numbers of the inputs of a shard without faces."""
        numbers: list[int] = pq.read_table(self.quarantine_file(shard), columns=["input"]).column("input").to_pylist()
        return numbers

    def faces(self, shard: int) -> Any:
        """The Arrow table of the faces of a shard."""
        return pq.read_table(self.faces_file(shard))


def _quarantine_row(outcome: Outcome) -> dict[str, Any]:
    entry = outcome.entry
    return {
        "input": entry.number, "id": entry.name, "path": entry.text, "frame": entry.frame, "subject": entry.subject,
        "status": outcome.status, "stage": outcome.stage, "exception": outcome.exception, "reason": outcome.reason,
        "size": outcome.size, "sha256": outcome.sha256,
    }  # fmt: skip


def read_quarantine(output: Path) -> Iterator[dict[str, Any]]:
    """The rows of the inputs of a run without faces, in the order of the inputs.

    Example:
        >>> [row["reason"] for row in read_quarantine(Path("out")) if row["status"] == "bad_image"]
    """
    for part in part_files(output / QUARANTINE):
        yield from pq.read_table(part).to_pylist()
