"""Where inference gets its pictures from: files read and decoded ahead of the faces, within a budget of bytes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextvars import copy_context
from itertools import islice
from pathlib import Path
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor

from facerecon_torch.errors import FaceReconError
from facerecon_torch.images.device_decode import BatchDecoder, decode_batch
from facerecon_torch.images.jpeg import jpeg_header
from facerecon_torch.images.read import Pixels, decode_pixels, read_bytes
from facerecon_torch.runtime.timer import timed

__all__ = ["Loaded", "decoded_ahead", "decoded_in_batches"]

Loaded: TypeAlias = tuple[Path, Pixels | Exception]
_AHEAD_BYTES = 2**28
_T = TypeVar("_T", bytes, Tensor)


def decoded_ahead(files: Sequence[Path], pool: Executor, *, ahead: int) -> Iterator[Loaded]:
    """Every file with its picture, or with what came instead, in order; up to `ahead` of them are decoded on `pool`
    before they are asked for."""
    yield from _ahead(_load, files, pool, ahead)


def decoded_in_batches(files: Sequence[Path], pool: Executor, decode: BatchDecoder, *, batch: int) -> Iterator[Loaded]:
    """The same, read ahead on `pool` and decoded by `decode` (`images.device_decode`), at most `batch` at once."""
    for group in _groups(_ahead(_read, files, pool, 2 * batch), batch):
        whole = [(path, data) for path, data in group if isinstance(data, bytes)]
        with timed("decode"):
            answers = iter(decode_batch(whole, decode))
        for path, data in group:
            yield path, next(answers) if isinstance(data, bytes) else data


def _groups(
    contents: Iterable[tuple[Path, bytes | Exception]], most: int
) -> Iterator[list[tuple[Path, bytes | Exception]]]:
    """Up to `most` files, whose ordinary JPEGs are at most _AHEAD_BYTES as pictures, or one."""
    group, size = list[tuple[Path, bytes | Exception]](), 0
    for path, data in contents:
        header = jpeg_header(data) if isinstance(data, bytes) else None
        more = 3 * header.height * header.width if header is not None else 0
        if group and (len(group) == most or size + more > _AHEAD_BYTES):
            yield group
            group, size = [], 0
        group.append((path, data))
        size += more
    if group:
        yield group


def _read(path: Path) -> bytes:
    with timed("read"):
        return read_bytes(path)


def _load(path: Path) -> Tensor:
    data = _read(path)
    with timed("decode"):
        return decode_pixels(data, path)


def _ahead(
    work: Callable[[Path], _T], files: Sequence[Path], pool: Executor, most: int
) -> Iterator[tuple[Path, _T | Exception]]:
    """Answers of `work` in order. What waits holds at most _AHEAD_BYTES, taking every answer for as large as the
    largest so far; before the first is known, four are begun."""
    waiting: deque[tuple[Path, Future[_T]]] = deque()
    left, largest = iter(files), 0
    while True:
        room = max(1, min(most, _AHEAD_BYTES // largest if largest else 4))
        for path in islice(left, max(0, room - len(waiting))):
            waiting.append((path, pool.submit(copy_context().run, work, path)))
        if not waiting:
            return
        path, job = waiting.popleft()
        try:
            answer = job.result()
        except (FaceReconError, OSError) as error:
            yield path, error
            continue
        largest = max(largest, answer.nbytes if isinstance(answer, torch.Tensor) else len(answer))
        yield path, answer
