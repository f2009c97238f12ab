"""The plan of a run: its inputs in shards (plan.arrow), and what they are reconstructed with (run.json).

A shard is a run of consecutive inputs, and one record batch of plan.arrow, so that any shard is read without the
others and a plan of any size is written and read in the memory of one shard.
"""

import hashlib
import json
import logging
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout

from facerecon_torch.commands.infer.inputs.entry import PLAN_SCHEMA, Entry, entries_of, plan_rows, record_batch
from facerecon_torch.commands.own_files import RUN_FORMAT, read_document, require_own
from facerecon_torch.files import write_json
from facerecon_torch.formats.face_document import PARAMETERS

__all__ = [
    "PLAN", "QUARANTINE", "RUN", "SUBJECTS", "Plan", "RunMismatchError", "fingerprint", "prepare_plan", "working",
]  # fmt: skip

PLAN, RUN = "plan.arrow", "run.json"
QUARANTINE, SUBJECTS = "quarantine", "subjects"
_VERSION = 1
_log = logging.getLogger(__name__)
_SHOWN = 16  # characters of a digest in messages


class RunMismatchError(ValueError):
    """The output folder holds a run of other inputs or settings."""


@dataclass(frozen=True)
class Plan:
    """The inputs of a run in shards.

    Attributes:
        file: plan.arrow.
        inputs: how many there are.
        shard_size: inputs of every shard but the last.
        digest: SHA-256 of the inputs.
    """

    file: Path
    inputs: int
    shard_size: int
    digest: str

    @property
    def shards(self) -> int:
        """The number of shards."""
        return -(-self.inputs // self.shard_size)

    def numbers(self, shard: int) -> range:
        """The numbers of the inputs of a shard."""
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, self.inputs))

    def entries(self, shard: int) -> list[Entry]:
        """The inputs of a shard."""
        with pa.OSFile(str(self.file), "rb") as file, pa.ipc.open_file(file) as opened:
            return entries_of(opened.get_batch(shard), self.numbers(shard).start)


def write_plan(
    entries: Iterable[Entry], file: Path, shard_size: int, *, mark: Callable[[Path], str] | None = None
) -> Plan:
    """The plan of entries, written to `file`.

    Args:
        entries: in the order of the run; they are streamed.
        file: of the plan.
        shard_size: inputs of a shard.
        mark: text that changes with what else an input depends on, such as its landmark file.
    """
    digest, count, left = hashlib.sha256(), 0, iter(entries)
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    metadata = {"facerecon_format": RUN_FORMAT}
    with pa.OSFile(str(file), "wb") as sink, \
            pa.ipc.new_file(sink, PLAN_SCHEMA.with_metadata(metadata), options=options) as writer:  # fmt: skip
        while group := list(islice(left, shard_size)):
            rows = plan_rows(group)
            writer.write_batch(record_batch(rows).replace_schema_metadata(metadata))
            digest.update("".join(map(repr, rows)).encode())
            if mark is not None:
                digest.update(
                    "".join(mark(entry.place) for entry in group if entry.problem is None).encode(
                        "utf-8", "surrogateescape"
                    )
                )
            count += len(group)
    return Plan(file, count, shard_size, digest.hexdigest())


def prepare_plan(
    output: Path,
    entries: Callable[[], Iterable[Entry]],
    settings: Callable[[int], Mapping[str, str]],
    *,
    shard_size: int,
    resume: bool,
    repairable: Callable[[Plan], Collection[int]] | None = None,
    mark: Callable[[Path], str] | None = None,
) -> tuple[Plan, dict[str, str]]:
    """The plan of a run in `output`, and its settings; a run that is there already goes on with the same ones.

    Args:
        output: the folder of the run.
        entries: gives the inputs.
        settings: number of inputs -> what they are reconstructed with, by name.
        shard_size: inputs of a shard.
        resume: go on with the run that is there; otherwise it is replaced, and its tables are removed.
        repairable: plan -> numbers of inputs that may have changed, when they are done again.
        mark: as of `write_plan`.

    Raises:
        RunMismatchError: another run is there.
        FileExistsError: files of somebody else are there.
    """
    output.mkdir(parents=True, exist_ok=True)
    require_own([output / RUN, output / PLAN])
    with FileLock(output / ".plan.lock"):
        aside = output / f".{uuid.uuid4().hex}.part"
        try:
            plan = write_plan(entries(), aside, shard_size, mark=mark)
            chosen = dict(settings(plan.inputs))
            document = {"format": RUN_FORMAT, "version": _VERSION, "inputs": plan.inputs, "shard_size": shard_size,
                        "shards": plan.shards, "inputs_sha256": plan.digest, "settings": chosen}  # fmt: skip
            if (output / RUN).is_file() and resume:
                _require_same(output, document, aside, repairable)
            elif (output / RUN).is_file():
                _remove_run(output)
            aside.replace(output / PLAN)
        finally:
            aside.unlink(missing_ok=True)
        write_json(output / RUN, document)
    return Plan(output / PLAN, plan.inputs, shard_size, plan.digest), chosen


def _require_same(
    output: Path, document: Mapping[str, Any], aside: Path, repairable: Callable[[Plan], Collection[int]] | None
) -> None:
    """Raise RunMismatchError unless the run in `output` is the one of `document`."""
    earlier = read_document(output / RUN)
    differing = [name for name in ("version", "shard_size") if earlier.get(name) != document[name]]
    before, now = earlier.get("settings", {}), document["settings"]
    differing += [name for name in now if before.get(name) != now[name]] + [n for n in before if n not in now]
    reason = ""
    if differing:
        listed = (f"{n}: {_short(before.get(n, earlier.get(n)))} -> {_short(now.get(n, document.get(n)))}"
                  for n in differing)  # fmt: skip
        reason = "other settings (" + "; ".join(listed) + ")"
    elif earlier.get("inputs_sha256") != document["inputs_sha256"]:
        old = Plan(output / PLAN, earlier["inputs"], document["shard_size"], earlier["inputs_sha256"])
        new = Plan(aside, document["inputs"], document["shard_size"], document["inputs_sha256"])
        allowed = repairable(old) if repairable is not None else ()
        reason = _first_change(old, new, allowed)
    if reason:
        raise RunMismatchError(
            f"{output} holds a run with {reason}; give another output, or resume=false to replace that run"
        )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 2 * _SHOWN else f"{text[:_SHOWN]}..."


def _first_change(old: Plan, new: Plan, allowed: Collection[int]) -> str:
    """The first input that differs between two plans and is not allowed to, as the reason of a refusal; empty where
    there is none."""
    if old.inputs != new.inputs:
        return f"other inputs ({old.inputs} then, {new.inputs} now)"
    changed = False
    for shard in range(new.shards):
        for before, now in zip(old.entries(shard), new.entries(shard)):
            if before == now:
                continue
            changed = True
            if before.place != now.place or before.number not in allowed:
                what = "" if before.place == now.place else f" instead of {before.text}"
                return f"other inputs (the first is input {now.number}, {now.text}{what}: new or changed since)"
    return "" if changed or allowed else "inputs whose landmark files have changed since"


def _remove_run(output: Path) -> None:
    (output / RUN).unlink()
    parts = [part for kind in (PARAMETERS, QUARANTINE, SUBJECTS) for part in (output / kind).glob("part-*.parquet")]
    require_own(parts)
    for part in parts:
        part.unlink()


@contextmanager
def working(output: Path, worker: int, workers: int) -> Iterator[None]:
    """A time in which no other process works on the same part of the run. Raises ValueError where one does."""
    output.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output / f".worker-{worker}-of-{workers}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"{output}: another process works on shard={worker}/{workers} of this run") from None
    try:
        if workers == 1:
            for left in (*output.glob(".*.part"), *output.glob("*/.*.part"), *output.glob("faces/*/.*.part")):
                left.unlink(missing_ok=True)  # of a run that was killed
        yield
    finally:
        lock.release()


def fingerprint(settings: Mapping[str, str]) -> str:
    """The SHA-256 of settings in hex: the fingerprint of a run."""
    return hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode()).hexdigest()
