"""Making a set piece by piece, in parallel, so that a run that was killed goes on where it stopped.

A set is a list of units. Making one writes its files and gives its rows of the truth, which are then kept in
parts/UNIT.safetensors: that file says that the unit is done. When all are, the rows are joined and parts/ goes.
"""

import json
import logging
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm import tqdm

from facerecon_torch.files import replacing, write_json
from facerecon_torch.runtime.processes import end_with_parent, one_thread

__all__ = [
    "claimed",
    "join_parts",
    "make_parts",
    "missing_units",
    "progress_bar",
    "require_same_set",
    "write_bytes",
]

_log = logging.getLogger(__name__)
_FOLDER = "parts"
Make = Callable[[str], dict[str, Tensor]]


def require_same_set(folder: Path, header: str, description: Mapping[str, object]) -> None:
    """Raise ValueError where `folder` holds a set, or the beginning of one, whose description has another "hash"."""
    for name in (header, f"{_FOLDER}/spec.json"):
        if (folder / name).is_file():
            found = json.loads((folder / name).read_text()).get("hash")
            if found != description["hash"]:
                raise ValueError(
                    f"{folder} already holds a synthetic set of hash {found}; the one asked for has hash "
                    f"{description['hash']}: {description.get('spec')}. Give another folder, or remove that one"
                )


@contextmanager
def claimed(folder: Path, header: str, description: Mapping[str, object]) -> Iterator[bool]:
    """Keep `folder` for making the set of this description; `header` names the file that a complete set ends with.

    Waits while another process is at work there. Yields whether there is anything left to make. Remains of a killed
    run are swept away before, and parts/ afterwards. Raises what `require_same_set` raises.
    """
    require_same_set(folder, header, description)
    if (folder / header).is_file():
        yield False
        return
    (folder / _FOLDER).mkdir(parents=True, exist_ok=True)
    with _locked(folder / _FOLDER / ".lock"):
        require_same_set(folder, header, description)
        unfinished = not (folder / header).is_file()
        if unfinished:
            for left in folder.rglob(".*.part"):
                left.unlink(missing_ok=True)
            write_json(folder / _FOLDER / "spec.json", description)
        yield unfinished
        shutil.rmtree(folder / _FOLDER, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.warning("another process is writing into %s; waiting for its end", path.parents[1])
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def missing_units(folder: Path, units: Sequence[str]) -> list[str]:
    """Those that are still to be made."""
    return [unit for unit in units if not _part(folder, unit).is_file()]


def make_parts(
    folder: Path, units: Sequence[str], make: Make, *, workers: int | None, warm_up: Callable[[], object]
) -> Iterator[str]:
    """Make the units that are missing; yields each when it is done.

    `workers` are processes (default: one a core) of one torch thread each, so sums of floats don't depend on their
    number; `warm_up` is called once before they start, to compile and cache what each of them needs. `make` must
    pickle.
    """
    todo = missing_units(folder, units)
    count = min(workers if workers is not None else os.cpu_count() or 1, len(todo))
    if count < 2:
        with one_thread():
            for unit in todo:
                yield _make_one(folder, unit, make)
        return
    warm_up()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker) as pool:
        jobs = [pool.submit(_make_one, folder, unit, make) for unit in todo]
        try:
            for job in as_completed(jobs):
                yield job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def join_parts(folder: Path, units: Sequence[str]) -> dict[str, Tensor]:
    """Rows of all units, in their order."""
    parts = [load_file(_part(folder, unit)) for unit in units]
    return {key: torch.cat([part.pop(key) for part in parts]) for key in list(parts[0])}


def progress_bar(units: Sequence[str], missing: int, *, what: str, unit: str, show: bool) -> "tqdm[NoReturn]":
    """A bar over all units that starts at those which are done."""
    return tqdm(total=len(units), initial=len(units) - missing, unit=unit, desc=what, disable=not show)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file aside and rename it."""
    with replacing(path) as part:
        part.write_bytes(content)


def _part(folder: Path, unit: str) -> Path:
    return folder / _FOLDER / f"{unit}.safetensors"


def _make_one(folder: Path, unit: str, make: Make) -> str:
    rows = make(unit)
    write_bytes(_part(folder, unit), save({key: value.contiguous() for key, value in rows.items()}))
    return unit


def _start_worker() -> None:
    torch.set_num_threads(1)
    end_with_parent()
