"""Recordings -> a prepared set: planned in units, worked on in parallel, resumable, the same whoever does the work."""

import json
import multiprocessing
import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from facerecon_torch.commands.prepare.pictures import PICTURES
from facerecon_torch.commands.prepare.read import is_disk_full
from facerecon_torch.commands.prepare.register import Unit, UnitDone
from facerecon_torch.commands.prepare.worker import (
    PrepareTask,
    Workplace,
    build_registrar,
    prepare_unit,
    read_unit,
    start_worker,
    unpack,
)
from facerecon_torch.data.prepared import CROPS, PreparedSet, assemble, is_complete, load_prepared, part_path
from facerecon_torch.data.recordings import Recording
from facerecon_torch.errors import FaceReconError
from facerecon_torch.files import write_json
from facerecon_torch.runtime.processes import one_thread

__all__ = ["plan_units", "prepare_set"]

_ROW_BYTES = 3_000  # without mesh and mask
_AHEAD = 2  # units that wait, read, for the device


def plan_units(recordings: Sequence[Recording], batch: int, *, whole_subjects: bool) -> list[Unit]:
    """The recordings in order, `batch` at a time; or, with `whole_subjects`, all of one subject."""
    if whole_subjects:
        subjects = sorted({recording.subject for recording in recordings})
        groups = [[r for r in recordings if r.subject == subject] for subject in subjects]
    else:
        groups = [list(recordings[start : start + batch]) for start in range(0, len(recordings), batch)]
    return [Unit(number, tuple(group)) for number, group in enumerate(groups)]


def prepare_set(
    task: PrepareTask,
    recordings: Sequence[Recording],
    fingerprint: dict[str, Any],
    *,
    n_vertices: int,
    device: torch.device,
    workers: int | None = None,
    progress: bool = True,
) -> PreparedSet:
    """Prepare what is missing of the set in `task.folder` and read it back.

    `fingerprint` holds all that the bytes depend on beside the files; `n_vertices` are the model's. Raises ValueError
    where the folder holds a set of another one; FaceReconError where no recording gives a sample or a process dies;
    OSError where the disk is full. What is finished stays: the next call goes on there.
    """
    folder = task.folder
    fingerprint = json.loads(json.dumps(fingerprint))
    _require_same(folder, fingerprint)
    if is_complete(folder):
        return load_prepared(folder)
    units = plan_units(recordings, task.prepare.batch, whole_subjects=task.registration.identity == "per_subject")
    with _only_one(folder), _room_told(folder):
        write_json(folder / "parts" / "spec.json", fingerprint)
        todo = [unit for unit in units if not part_path(folder, unit.number).is_file()]
        missing = sum(len(unit.recordings) for unit in todo)
        _require_room(task, len(recordings), missing, n_vertices)
        with tqdm(total=len(recordings), initial=len(recordings) - missing, unit="scan", disable=not progress) as bar:
            for done in _worked(task, todo, device, workers or os.cpu_count() or 1):
                bar.update(done.samples + len(done.failures))
        numbers = [unit.number for unit in units]
        return assemble(folder, numbers, model_sha256=fingerprint["model_sha256"], spec=fingerprint)


def _require_same(folder: Path, fingerprint: dict[str, Any]) -> None:
    for path, key in ((folder / "set.json", "spec"), (folder / "parts" / "spec.json", None)):
        if not path.is_file():
            continue
        found = json.loads(path.read_text(encoding="utf-8"))
        found = found[key] if key else found
        other = [name for name in fingerprint if found.get(name) != fingerprint[name]]
        if other or set(found) != set(fingerprint):
            told = "; ".join(f"{name} {found.get(name)}, now {fingerprint[name]}" for name in other)
            raise ValueError(
                f"output must be the folder of the same set, or another one; {folder} was begun with {told}"
            )


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Nobody else prepares into the folder; the lock ends with its process, however that ends."""
    for place in ("parts", CROPS):
        (folder / place).mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FaceReconError(f"{folder}: another run prepares this set; wait for its end") from None
    try:
        _sweep(folder)
        yield
    finally:
        lock.release()
        (folder / ".lock").unlink(missing_ok=True)


@contextmanager
def _room_told(folder: Path) -> Iterator[None]:
    """Says what to do where the disk is full; the other errors of the system speak for themselves."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        told = "no room is left on the disk; what is finished stays: make room and run again to go on"
        raise OSError(error.errno, told, str(folder)) from error


def _sweep(folder: Path) -> None:
    """Remove what a killed run was writing."""
    for place in (folder, folder / "parts", folder / CROPS, folder / PICTURES):
        for left in place.glob(".*.part"):
            left.unlink(missing_ok=True)


def _require_room(task: PrepareTask, samples: int, missing: int, n_vertices: int) -> None:
    """Raise FaceReconError before the work begins where its results cannot fit. At the end, all parts and the tables
    are there at once."""
    row = _ROW_BYTES + n_vertices * 13  # mesh and mask
    needed = missing * (row + task.prepare.crop.bytes_expected) + samples * row
    free = shutil.disk_usage(task.folder).free
    if needed > free:
        raise FaceReconError(
            f"{task.folder}: expected room for {samples} samples, about {needed / 1e9:.1f} GB; "
            f"{free / 1e9:.1f} GB are free"
        )


def _worked(task: PrepareTask, todo: list[Unit], device: torch.device, workers: int) -> Iterator[UnitDone]:
    """Units as they are finished."""
    workers = min(workers, len(todo))
    if not todo:
        return
    if workers == 1 and device.type == "cpu":
        with one_thread():
            workplace = Workplace(task)
            yield from (workplace.prepare(unit) for unit in todo)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker, initargs=(task,))
    with pool:
        try:
            yield from (
                _in_workers(pool, todo) if device.type == "cpu" else _on_device(pool, task, todo, device, workers)
            )
        except BrokenProcessPool as error:
            raise FaceReconError(
                f"{task.folder}: a process ended without an answer, killed perhaps for want of memory; run again to go "
                "on, with fewer of them (runtime.workers)"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _in_workers(pool: Executor, todo: list[Unit]) -> Iterator[UnitDone]:
    for job in as_completed([pool.submit(prepare_unit, unit) for unit in todo]):
        yield job.result()


def _on_device(
    pool: Executor, task: PrepareTask, todo: list[Unit], device: torch.device, workers: int
) -> Iterator[UnitDone]:
    """The workers read, this process registers; only a few units are read ahead."""
    registrar = build_registrar(task, device)
    waiting: deque[tuple[Unit, Future[bytes]]] = deque()
    rest = iter(todo)
    while True:
        while len(waiting) < workers + _AHEAD and (unit := next(rest, None)) is not None:
            waiting.append((unit, pool.submit(read_unit, unit)))
        if not waiting:
            return
        unit, job = waiting.popleft()
        yield registrar.finish(unit, *unpack(job.result()))
