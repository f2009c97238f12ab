"""A folder that is made shard by shard, in parallel, so that a run that was killed goes on where it stopped.

Making a shard writes its files and returns its rows, which are stored as shards/NAME.safetensors; that file marks the
shard as done. When all shards are done, their rows are joined, the header file is written and shards/ is removed.
"""

import json
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor
from tqdm import tqdm

from facerecon_torch.errors import DataFileError, FaceReconError
from facerecon_torch.files import is_disk_full, require_space, write_json
from facerecon_torch.formats.checked_columns import load_columns, save_columns
from facerecon_torch.formats.json_file import parse_json, read_json

__all__ = ["SHARDS", "Shard", "ShardedJob", "join_columns"]

SHARDS = "shards"
"""The folder of finished shards inside the folder of a job; it is there until the job is complete."""
_AHEAD = 2  # results of workers that wait for this process
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """The result of making a shard: `columns` of one length each, and a JSON `document` of what is no tensor."""

    columns: dict[str, Tensor]
    document: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ShardedJob:
    """A folder, the shards it is made of, and the description that its bytes depend on.

    The bytes depend neither on the number of processes nor on where earlier runs were killed, as long as making a
    shard depends on the description and the shard's name alone. If several processes run one job, the first one works
    and the others wait until the folder is complete.

    Args:
        folder: where everything is written; created if it is missing.
        header: name of the JSON file that `complete` writes last. Where it exists, the folder is complete.
        description: JSON entries that the header must repeat under the same keys.
        shards: number of items (images, scans) in every shard, by name. Names are file names.
        beside: names of files that the caller writes into the folder.

    Example:
        >>> job = ShardedJob(folder=folder, header="set.json", description={"spec": asdict(spec)}, shards={"a": 3})
        >>> job.run(partial(render_subject, spec), partial(write_set, spec, folder), workers=4)
    """

    folder: Path
    header: str
    description: Mapping[str, Any]
    shards: Mapping[str, int]
    beside: Collection[str] = ()

    def run(
        self,
        make: Callable[[str], Any],
        complete: Callable[[list[Shard]], None],
        *,
        finish: Callable[[Any], Shard] | None = None,
        workers: int | None = None,
        warm_up: Callable[[], object] | None = None,
        bytes_needed: Callable[[int], int] | None = None,
        progress: str | None = None,
        unit: str = "image",
    ) -> None:
        """Make the missing shards, then complete the folder. Nothing happens where it is complete already.

        Args:
            make: name of a shard -> `Shard`. It is pickled once per process; each process has one torch thread, since
                sums of floats depend on the number of threads.
            complete: all shards, in order -> the files of the whole folder, the header last.
            finish: result of `make` -> `Shard`, called in this process, with its threads and its GPU. Without it,
                `make` returns the shard itself.
            workers: number of processes; one per core by default. A single one without `finish` is this process.
            warm_up: called once before several workers start, to fill the caches that all of them read.
            bytes_needed: number of missing items -> bytes that the disk must have left.
            progress: label of the progress bar; without one there is no bar.
            unit: name of one item in the bar.

        Raises:
            ValueError: `workers` is below 1, or the folder holds a set of another description.
            FileExistsError: the folder holds files that are no part of this job.
            OSError: the disk is full, or would become so. Finished shards stay.
            FaceReconError: a worker died.
        """
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be at least 1; got {workers}")
        self._require_same_description()
        if self._is_complete():
            return
        with self._locked(), self._disk_full_explained():
            self._require_same_description()
            if not self._is_complete():
                self._require_own_folder()
                self._remove_unfinished_files()
                write_json(self.folder / SHARDS / "description.json", dict(self.description))
                missing = [name for name in self.shards if not self._is_finished(name)]
                items = sum(self.shards[name] for name in missing)
                if bytes_needed is not None:
                    require_space(self.folder, bytes_needed(items))
                total = sum(self.shards.values())
                bar = tqdm(total=total, initial=total - items, unit=unit, desc=progress, disable=progress is None)
                with bar:
                    count = min(workers or os.cpu_count() or 1, len(missing))
                    for name in self._made(missing, make, finish, count, warm_up):
                        bar.update(self.shards[name])
                complete([_read_shard(self._path(name)) for name in self.shards])
            shutil.rmtree(self.folder / SHARDS, ignore_errors=True)

    def _made(
        self,
        missing: Sequence[str],
        make: Callable[[str], Any],
        finish: Callable[[Any], Shard] | None,
        count: int,
        warm_up: Callable[[], object] | None,
    ) -> Iterator[str]:
        """Names of shards as they are finished, by `count` processes."""
        if not missing:
            return
        if count == 1 and finish is None:
            with _one_thread():
                for name in missing:
                    _write_shard(self._path(name), make(name))
                    yield name
            return
        if warm_up is not None:
            warm_up()
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker, initargs=(make,)) as pool:
            try:
                if finish is None:
                    jobs = [pool.submit(_make_in_worker, name, self._path(name)) for name in missing]
                    yield from (job.result() for job in as_completed(jobs))
                else:
                    for name, result in _in_order(pool, missing, count + _AHEAD):
                        _write_shard(self._path(name), finish(result))
                        yield name
            except BrokenProcessPool as error:
                raise FaceReconError(
                    f"{self.folder}: a process ended without a result, killed perhaps because memory ran out; run "
                    "again to go on, with fewer processes (runtime.workers)"
                ) from error
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _path(self, name: str) -> Path:
        return self.folder / SHARDS / f"{name}.safetensors"

    def _is_finished(self, name: str) -> bool:
        """Whether a shard is there and undamaged; a damaged one is made again."""
        if not self._path(name).is_file():
            return False
        try:
            _read_shard(self._path(name))
        except DataFileError as error:
            _log.warning("%s; it is made again", error)
            return False
        return True

    def _require_own_folder(self) -> None:
        """Raise FileExistsError unless the folder is new, empty but for `beside`, or of a run that was stopped: files
        of others could have the names of this job's."""
        if (self.folder / SHARDS / "description.json").is_file():
            return
        for path in self.folder.iterdir():
            if path.name not in (".lock", SHARDS, *self.beside):
                raise FileExistsError(
                    f"{self.folder}: expected a new or empty folder, or one of an earlier run; it holds {path.name}"
                )

    def _is_complete(self) -> bool:
        return (self.folder / self.header).is_file()

    def _require_same_description(self) -> None:
        new = _flat(json.loads(json.dumps(self.description)))
        for path in (self.folder / self.header, self.folder / SHARDS / "description.json"):
            if not path.is_file():
                continue
            document = read_json(path)
            old = _flat({key: document.get(key) for key in self.description})
            other = [
                f"{key} {old.get(key)}, now {new.get(key)}" for key in {**new, **old} if old.get(key) != new.get(key)
            ]
            if other:
                raise ValueError(
                    f"{self.folder} already holds another set: {'; '.join(other)}. Give another folder, or remove it"
                )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the job's lock, which ends with its process, however that ends. The file goes once the job is complete.

        It lies outside the folder of shards: waiting processes open it again after the first one removed that folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _log.warning("another process is writing into %s; waiting for its end", self.folder)
            lock.acquire()
        try:
            yield
            Path(lock.lock_file).unlink(missing_ok=True)
        finally:
            lock.release()

    @contextmanager
    def _disk_full_explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not is_disk_full(error):
                raise
            message = "no room is left on the disk; finished shards stay: make room and run again to go on"
            raise OSError(error.errno, message, str(self.folder)) from error

    def _remove_unfinished_files(self) -> None:
        """Remove the files that a killed run had not renamed yet."""
        for path in self.folder.rglob(".*.part"):
            path.unlink(missing_ok=True)


def join_columns(shards: Sequence[Shard]) -> dict[str, Tensor]:
    """The columns of all shards, joined in order. A shard without columns is skipped.

    Columns are taken out of the shards while they are joined, so that only one column is in memory twice. Raises
    ValueError where shards hold different columns.
    """
    filled = [shard.columns for shard in shards if shard.columns]
    names = {tuple(sorted(columns)) for columns in filled}
    if len(names) > 1:
        raise ValueError(f"every shard must hold the same columns; got {sorted(names)}")
    return {name: torch.cat([columns.pop(name) for columns in filled]) for name in (names.pop() if names else ())}


def _flat(description: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a description, those of its dictionaries among them."""
    flat: dict[str, Any] = {}
    for key, value in description.items():
        flat |= value if isinstance(value, dict) else {key: value}
    return flat


def _write_shard(path: Path, shard: Shard) -> None:
    save_columns(path, shard.columns, {"document": json.dumps(shard.document)})


def _read_shard(path: Path) -> Shard:
    columns, metadata = load_columns(path)
    return Shard(columns, parse_json(metadata.get("document", ""), path))


def _in_order(pool: ProcessPoolExecutor, names: Sequence[str], ahead: int) -> Iterator[tuple[str, Any]]:
    """Results of the workers in the order of `names`; at most `ahead` of them wait in memory."""
    waiting: deque[tuple[str, Future[bytes]]] = deque()
    remaining = iter(names)
    while True:
        while len(waiting) < ahead and (name := next(remaining, None)) is not None:
            waiting.append((name, pool.submit(_pickled_in_worker, name)))
        if not waiting:
            return
        name, job = waiting.popleft()
        yield name, pickle.loads(job.result())


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch on one thread, as in a worker."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_worker_make: Callable[[str], Any] | None = None


def _start_worker(make: Callable[[str], Any]) -> None:
    """Set up a worker process: one torch thread, and an end together with its parent.

    A parent that is killed cannot stop its workers, which would wait for their next shard for ever. Ctrl-C reaches all
    processes of a terminal; the parent alone answers it.
    """
    global _worker_make
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _worker_make = make


def _exit_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _result_in_worker(name: str) -> Any:
    if _worker_make is None:
        raise RuntimeError("_start_worker must run before a shard is made")
    return _worker_make(name)


def _make_in_worker(name: str, path: Path) -> str:
    _write_shard(path, _result_in_worker(name))
    return name


def _pickled_in_worker(name: str) -> bytes:
    """The result as bytes, so that no tensor travels through shared memory, whose handles are few."""
    return pickle.dumps(_result_in_worker(name))
