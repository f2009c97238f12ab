"""Frames of video files, by PyAV (the extra `video`)."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from facerecon_torch.commands.infer.inputs.entry import Entry, file_entry
from facerecon_torch.errors import ImageFileError
from facerecon_torch.images.video import pyav

__all__ = ["VIDEO_SUFFIXES", "VideoFrames", "video_entries"]

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv")
_KEPT_FRAMES = 32  # decoded on the way to a later one


def video_entries(path: str, *, every: int = 1) -> Iterator[Entry]:
    """An entry per frame in the order in which they are shown; a file without video is an entry with its problem.

    Frames are counted by their packets: nothing is decoded.

    Raises:
        ImportError: PyAV is missing.
    """
    av, whole = pyav(), file_entry(path)
    try:
        with av.open(path) as container:
            times = _frame_times(container)
    except (av.FFmpegError, OSError, ValueError, IndexError) as error:
        problem = f"{path}: expected a video; {type(error).__name__}: {error}"
        yield Entry(path, size=whole.size, changed=whole.changed, problem=problem)
        return
    if not times:
        yield Entry(path, size=whole.size, changed=whole.changed, problem=f"{path}: expected a video; got no frame")
    for frame in range(0, len(times), every):
        yield Entry(path, frame=frame, time=times[frame], size=whole.size, changed=whole.changed)


def _frame_times(container: Any) -> list[float]:
    """Seconds at which the frames are shown, in order."""
    if not container.streams.video:
        return []
    stream = container.streams.video[0]
    stamps = sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None)
    return [float(stamp * stream.time_base) for stamp in stamps]


class VideoFrames:
    """Frames of one video after another, read by several threads in about the order of their numbers.

    Args:
        max_megapixels: frames that are larger are refused.
    """

    def __init__(self, max_megapixels: float | int) -> None:
        self._most = max_megapixels * 1e6
        self._lock = threading.Lock()
        self._path: str | None = None
        self._container: Any = None
        self._frames: Iterator[Any] = iter(())
        self._next = 0.0  # seconds of the frame that comes next, at least
        self._kept: OrderedDict[float, UInt8[Tensor, "3 height width"]] = OrderedDict()

    def read(self, entry: Entry) -> UInt8[Tensor, "3 height width"]:
        """The pixels of a frame. Raises ImageFileError where the video has none at its time."""
        av, time = pyav(), entry.time or 0.0
        with self._lock:
            if entry.path != self._path:
                self._open(entry.path, av)
            pixels = self._kept.pop(_key(time), None)
            if pixels is not None:
                return pixels
            try:
                return self._forward(entry, time)
            except (av.FFmpegError, StopIteration, OSError, ValueError) as error:
                self.close()
                raise ImageFileError(f"{entry.place}: expected a frame; {type(error).__name__}: {error}") from error

    def _open(self, path: str, av: Any) -> None:
        self.close()
        try:
            self._container = av.open(path)
        except (av.FFmpegError, OSError) as error:
            raise ImageFileError(f"{path}: expected a video; {error}") from error
        stream = self._container.streams.video[0]
        self._path, self._frames, self._next = path, self._container.decode(stream), 0.0

    def _forward(self, entry: Entry, time: float) -> UInt8[Tensor, "3 height width"]:
        """Decode up to the frame at `time`; the frames on the way wait for the threads that ask for them."""
        stream = self._container.streams.video[0]
        if stream.width * stream.height > self._most:
            raise ImageFileError(f"{entry.place}: expected at most {self._most / 1e6:g} megapixels a frame")
        if time < self._next - 1e-9 or time > self._next + 5.0:
            self._container.seek(round(time / stream.time_base), stream=stream, backward=True)
            self._frames = self._container.decode(stream)
        while True:
            frame = next(self._frames)
            shown = float(frame.pts * stream.time_base)
            self._next = shown + 1e-6
            if _key(shown) == _key(time):
                return _pixels(frame)
            if shown > time:
                raise ImageFileError(f"{entry.place}: expected a frame at {time:.3f} s; got one at {shown:.3f} s")
            if shown > time - 1.0:
                self._kept[_key(shown)] = _pixels(frame)
                while len(self._kept) > _KEPT_FRAMES:
                    self._kept.popitem(last=False)

    def close(self) -> None:
        """Close the file that is open."""
        if self._container is not None:
            self._container.close()
        self._container, self._path, self._frames = None, None, iter(())
        self._kept.clear()


def _key(time: float) -> float:
    return round(time, 6)


def _pixels(frame: Any) -> UInt8[Tensor, "3 height width"]:
    return torch.from_numpy(np.ascontiguousarray(frame.to_ndarray(format="rgb24"))).permute(2, 0, 1)
