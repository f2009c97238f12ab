"""Image files, read and decoded on threads ahead of their use, within a budget of bytes."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from jaxtyping import UInt8
from torch import Tensor

from facerecon_torch.images.device_decode import BatchDecoder, decode_batch
from facerecon_torch.images.open import MAX_MEGAPIXELS
from facerecon_torch.images.read import Pixels, decode_pixels, image_size, read_bytes
from facerecon_torch.runtime.time_limit import result_within
from facerecon_torch.runtime.timer import timed

__all__ = [
    "AHEAD_BYTES",
    "ImageContent",
    "LoadError",
    "LoadedImage",
    "content_of",
    "decoded_ahead",
    "decoded_in_batches",
    "read_content",
]

AHEAD_BYTES = 2**28
"""Bytes of decoded pixels, and of files, that wait by default."""


@dataclass(frozen=True)
class ImageContent:
    """The pixels of one image, or the error of reading it.

    Attributes:
        name: for messages.
        data: the bytes of its file; or its pixels, of a video.
        digest: SHA-256 of the bytes in hex; None for a frame of a video.
        pixel_bytes: bytes of its pixels, by its header.
    """

    name: Path
    data: bytes | UInt8[Tensor, "3 height width"]
    digest: str | None
    pixel_bytes: int


@dataclass(frozen=True)
class LoadedImage:
    """A decoded image and the SHA-256 of its file, None for a frame of a video."""

    pixels: Pixels
    digest: str | None


class LoadError(Exception):
    """Why there is no image: `stage` is `read` or `decode`, `cause` the error."""

    def __init__(self, stage: str, cause: Exception) -> None:
        super().__init__(str(cause))
        self.stage, self.cause = stage, cause


_K = TypeVar("_K")
_Read: TypeAlias = Callable[[_K], ImageContent]
_Content: TypeAlias = tuple[_K, ImageContent | LoadError]
_Loaded: TypeAlias = tuple[_K, LoadedImage | LoadError]


def read_content(path: Path, *, max_megapixels: float | int = MAX_MEGAPIXELS) -> ImageContent:
    """An image file with its digest and size. Raises ImageFileError."""
    with timed("read"):
        return content_of(path, read_bytes(path, max_megapixels=max_megapixels))


def content_of(name: Path, data: bytes) -> ImageContent:
    """The bytes of an image file with their digest and size."""
    height, width = image_size(data)
    return ImageContent(name, data, hashlib.sha256(data).hexdigest(), 3 * height * width)


@dataclass(frozen=True, kw_only=True)
class _Way(Generic[_K]):
    """The functions that read and decode images."""

    read: _Read[_K]
    pool: Executor
    max_megapixels: float | int
    memory: int
    seconds: float | None

    def decode(self, content: ImageContent) -> LoadedImage:
        if isinstance(content.data, Tensor):
            return LoadedImage(content.data, content.digest)
        with timed("decode"):
            pixels = decode_pixels(content.data, content.name, max_megapixels=self.max_megapixels)
            return LoadedImage(pixels, content.digest)


def decoded_ahead(
    items: Iterable[_K],
    pool: Executor,
    read: _Read[_K],
    *,
    ahead: int,
    max_megapixels: float | int = MAX_MEGAPIXELS,
    memory: int = AHEAD_BYTES,
    seconds: float | None = None,
) -> Iterator[_Loaded[_K]]:
    """Every item with its picture, or with what came instead, in order.

    Args:
        items: whatever `read` takes, such as paths.
        pool: on which files are read and decoded before they are asked for.
        read: item -> content.
        ahead: items that wait at most. With 1, none is touched before the one before it was taken.
        max_megapixels: larger images are refused.
        memory: bytes of pixels, and of files, that wait at most.
        seconds: that reading and decoding of one item may take each, on a `DaemonPool`.
    """
    way = _Way(read=read, pool=pool, max_megapixels=max_megapixels, memory=memory, seconds=seconds)
    if ahead == 1:
        for item in items:
            content = _read_alone(way, item)
            yield item, content if isinstance(content, LoadError) else _caught("decode", _begun(way, content))
        return
    waiting, held = deque[tuple[_K, Callable[[], LoadedImage] | LoadError, int]](), 0
    for item, content in _read_ahead(items, way, ahead):
        size = content.pixel_bytes if isinstance(content, ImageContent) else 0
        while waiting and (len(waiting) == ahead or held + size > memory):
            first, result, freed = waiting.popleft()
            held -= freed
            yield first, result if isinstance(result, LoadError) else _caught("decode", result)
        held += size
        waiting.append((item, content if isinstance(content, LoadError) else _begun(way, content), size))
    while waiting:
        item, result, _ = waiting.popleft()
        yield item, result if isinstance(result, LoadError) else _caught("decode", result)


def decoded_in_batches(
    items: Iterable[_K],
    pool: Executor,
    read: _Read[_K],
    decode: BatchDecoder,
    *,
    batch: int,
    max_megapixels: float | int = MAX_MEGAPIXELS,
    memory: int = AHEAD_BYTES,
    seconds: float | None = None,
) -> Iterator[_Loaded[_K]]:
    """The same, read ahead on `pool` and decoded by `decode` (`images.device_decode`), at most `batch` at once."""
    way = _Way(read=read, pool=pool, max_megapixels=max_megapixels, memory=memory, seconds=seconds)
    for group in _groups(_read_ahead(items, way, 2 * batch), batch, memory):
        contents = [content for _, content in group if isinstance(content, ImageContent)]
        files = [(content.name, content.data) for content in contents if isinstance(content.data, bytes)]
        with timed("decode"):
            answers = iter(decode_batch(files, decode, max_megapixels=max_megapixels))
        for item, content in group:
            if isinstance(content, LoadError):
                yield item, content
                continue
            pixels = content.data if isinstance(content.data, Tensor) else next(answers)
            if isinstance(pixels, Exception):
                yield item, LoadError("decode", pixels)
            else:
                yield item, LoadedImage(pixels, content.digest)


def _groups(contents: Iterable[_Content[_K]], most: int, memory: int) -> Iterator[list[_Content[_K]]]:
    """Up to `most` items, whose pixels take at most `memory`, or one."""
    group, size = list[_Content[_K]](), 0
    for item, content in contents:
        more = content.pixel_bytes if isinstance(content, ImageContent) else 0
        if group and (len(group) == most or size + more > memory):
            yield group
            group, size = [], 0
        group.append((item, content))
        size += more
    if group:
        yield group


def _begun(way: _Way[_K], content: ImageContent) -> Callable[[], LoadedImage]:
    """Gives the picture, decoded on the pool, or raises why there is none."""
    if isinstance(content.data, Tensor):
        return partial(way.decode, content)
    job = way.pool.submit(copy_context().run, way.decode, content)
    return partial(result_within, job, way.seconds)


_T = TypeVar("_T")


def _caught(stage: str, result: Callable[[], _T]) -> _T | LoadError:
    try:
        return result()
    except Exception as error:  # of this item alone: the others go on
        return LoadError(stage, error)
    finally:
        del result  # the error holds this frame


def _read_alone(way: _Way[_K], item: _K) -> ImageContent | LoadError:
    job: Future[ImageContent] = way.pool.submit(copy_context().run, way.read, item)
    return _caught("read", partial(result_within, job, way.seconds))


def _read_ahead(items: Iterable[_K], way: _Way[_K], most: int) -> Iterator[_Content[_K]]:
    """Items in order. What waits holds at most the memory of `way`, taking every file for as large as the largest so
    far; before the first is known, four are begun."""
    waiting: deque[tuple[_K, Future[ImageContent]]] = deque()
    left, largest = iter(items), 0
    while True:
        room = max(1, min(most, way.memory // largest if largest else 4))
        for item in islice(left, max(0, room - len(waiting))):
            waiting.append((item, way.pool.submit(copy_context().run, way.read, item)))
        if not waiting:
            return
        item, job = waiting.popleft()
        content = _caught("read", partial(result_within, job, way.seconds))
        if isinstance(content, ImageContent):
            largest = max(largest, len(content.data) if isinstance(content.data, bytes) else content.data.nbytes)
        yield item, content
