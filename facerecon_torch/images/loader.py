"""Image files, read and decoded on threads ahead of their use, within a budget of bytes."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from facerecon_torch.errors import ImageFileError
from facerecon_torch.images.device_decode import BatchDecoder, decode_batch
from facerecon_torch.images.open import MAX_MEGAPIXELS
from facerecon_torch.images.read import Pixels, decode_pixels, image_size, read_bytes
from facerecon_torch.runtime.timer import timed

__all__ = ["ImageContent", "Loaded", "LoadedImage", "decoded_ahead", "decoded_in_batches", "read_content"]

_AHEAD_BYTES = 2**28


@dataclass(frozen=True)
class ImageContent:
    """The bytes of an image file, their SHA-256 in hex, and the bytes that its pixels take by its header."""

    data: bytes
    digest: str
    pixel_bytes: int


@dataclass(frozen=True)
class LoadedImage:
    """A decoded image file and its SHA-256."""

    pixels: Pixels
    digest: str


Loaded: TypeAlias = tuple[Path, LoadedImage | Exception]
_Content: TypeAlias = tuple[Path, ImageContent | Exception]


def read_content(path: Path, *, max_megapixels: float | int = MAX_MEGAPIXELS) -> ImageContent:
    """An image file with its digest and size. Raises ImageFileError."""
    with timed("read"):
        data = read_bytes(path, max_megapixels=max_megapixels)
        height, width = image_size(data)
        return ImageContent(data, hashlib.sha256(data).hexdigest(), 3 * height * width)


def decoded_ahead(
    files: Sequence[Path], pool: Executor, *, ahead: int, max_megapixels: float | int = MAX_MEGAPIXELS
) -> Iterator[Loaded]:
    """Every file with its picture, or with what came instead, in order; up to `ahead` of them are decoded on `pool`
    before they are asked for, as long as their pixels take at most _AHEAD_BYTES. With `ahead` of 1 no file is touched
    before the one before it was taken."""
    read = partial(read_content, max_megapixels=max_megapixels)
    decode = partial(_decoded, max_megapixels=max_megapixels)
    if ahead == 1:
        yield from ((path, _caught(partial(_read_and_decoded, path, read, decode))) for path in files)
        return
    waiting, held = deque[tuple[Path, Callable[[], LoadedImage], int]](), 0
    for path, content in _read_ahead(files, pool, ahead, read):
        size = content.pixel_bytes if isinstance(content, ImageContent) else 0
        while waiting and (len(waiting) == ahead or held + size > _AHEAD_BYTES):
            first, result, freed = waiting.popleft()
            held -= freed
            yield first, _caught(result)
        held += size
        waiting.append((path, _begun(pool, decode, path, content), size))
    for path, result, _ in waiting:
        yield path, _caught(result)


def decoded_in_batches(
    files: Sequence[Path],
    pool: Executor,
    decode: BatchDecoder,
    *,
    batch: int,
    max_megapixels: float | int = MAX_MEGAPIXELS,
) -> Iterator[Loaded]:
    """The same, read ahead on `pool` and decoded by `decode` (`images.device_decode`), at most `batch` at once."""
    read = partial(read_content, max_megapixels=max_megapixels)
    for group in _groups(_read_ahead(files, pool, 2 * batch, read), batch):
        whole = [(path, content.data) for path, content in group if isinstance(content, ImageContent)]
        with timed("decode"):
            answers = iter(decode_batch(whole, decode, max_megapixels=max_megapixels))
        for path, content in group:
            if isinstance(content, Exception):
                yield path, content
                continue
            pixels = next(answers)
            yield path, pixels if isinstance(pixels, ImageFileError) else LoadedImage(pixels, content.digest)


def _groups(contents: Iterable[_Content], most: int) -> Iterator[list[_Content]]:
    """Up to `most` files, whose pixels take at most _AHEAD_BYTES, or one."""
    group, size = list[_Content](), 0
    for path, content in contents:
        more = content.pixel_bytes if isinstance(content, ImageContent) else 0
        if group and (len(group) == most or size + more > _AHEAD_BYTES):
            yield group
            group, size = [], 0
        group.append((path, content))
        size += more
    if group:
        yield group


def _decoded(path: Path, content: ImageContent, *, max_megapixels: float | int) -> LoadedImage:
    with timed("decode"):
        return LoadedImage(decode_pixels(content.data, path, max_megapixels=max_megapixels), content.digest)


def _read_and_decoded(
    path: Path, read: Callable[[Path], ImageContent], decode: Callable[[Path, ImageContent], LoadedImage]
) -> LoadedImage:
    return decode(path, read(path))


def _begun(
    pool: Executor,
    decode: Callable[[Path, ImageContent], LoadedImage],
    path: Path,
    content: ImageContent | Exception,
) -> Callable[[], LoadedImage]:
    """Gives the picture, decoded on `pool`, or raises why there is none."""
    if isinstance(content, ImageContent):
        return pool.submit(copy_context().run, decode, path, content).result

    def refuse() -> LoadedImage:
        raise content

    return refuse


def _caught(result: Callable[[], LoadedImage]) -> LoadedImage | Exception:
    try:
        return result()
    except Exception as error:  # of this file alone: the others go on
        return error


def _read_ahead(
    files: Sequence[Path], pool: Executor, most: int, read: Callable[[Path], ImageContent]
) -> Iterator[_Content]:
    """Files in order. What waits holds at most _AHEAD_BYTES, taking every file for as large as the largest so far;
    before the first is known, four are begun."""
    waiting: deque[tuple[Path, Future[ImageContent]]] = deque()
    left, largest = iter(files), 0
    while True:
        room = max(1, min(most, _AHEAD_BYTES // largest if largest else 4))
        for path in islice(left, max(0, room - len(waiting))):
            waiting.append((path, pool.submit(copy_context().run, read, path)))
        if not waiting:
            return
        path, job = waiting.popleft()
        try:
            content = job.result()
        except Exception as error:  # of this file alone: the others go on
            yield path, error
            continue
        largest = max(largest, len(content.data))
        yield path, content
