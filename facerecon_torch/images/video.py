"""Frames of video files and video files of frames, by PyAV (the extra `video`), which is imported on first use."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from facerecon_torch.errors import ImageFileError, MissingExtraError
from facerecon_torch.files import replacing

__all__ = ["pyav", "Frame", "frame_rate", "read_frames", "write_video"]

_QUALITY = "20"  # constant rate factor of H.264: 0 is lossless, 51 the worst
_FALLBACK_RATE = Fraction(30)  # frames a second of a file that names none
_LARGEST_DENOMINATOR = 65535  # of a rate in an .mp4 file
_COMMENT = "facerecon_torch"


@dataclass(frozen=True)
class Frame:
    """One frame: RGB, and its time from the start of the video in seconds."""

    pixels: UInt8[Tensor, "3 height width"]
    seconds: float


def pyav() -> Any:
    """The package av. Raises MissingExtraError where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("videos", "PyAV", "video") from error
    return av


def frame_rate(path: str | os.PathLike[str]) -> Fraction:
    """The frames a second that a video file names; 30 where it names none.

    Raises:
        MissingExtraError: PyAV is not installed.
        ImageFileError: the file cannot be read, or holds no video.

    Example:
        >>> float(frame_rate("clip.mp4"))
    """
    with _opened(Path(path)) as container:
        rate = container.streams.video[0].average_rate
    return Fraction(rate) if rate else _FALLBACK_RATE


def read_frames(path: str | os.PathLike[str]) -> Iterator[Frame]:
    """The frames of a video file in order, one at a time, turned as the file says.

    Raises:
        MissingExtraError: PyAV is not installed.
        ImageFileError: the file cannot be read, or holds no video, or ends in damage; the frames before it came.

    Example:
        >>> pixels = [frame.pixels for frame in read_frames("clip.mp4")]
    """
    av, path = pyav(), Path(path)
    rate = frame_rate(path)
    with _opened(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        try:
            for k, frame in enumerate(container.decode(stream)):
                pixels = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
                turned = torch.rot90(pixels, round((getattr(frame, "rotation", 0) or 0) / 90), (1, 2))
                yield Frame(turned.contiguous(), float(k / rate) if frame.time is None else float(frame.time))
        except av.FFmpegError as error:
            raise ImageFileError(f"{path}: expected a whole video; {error}") from error


def _opened(path: Path) -> Any:
    """The container of a file with a video stream."""
    av = pyav()
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise ImageFileError(f"{path}: expected a video; {error}") from error
    if not container.streams.video:
        container.close()
        raise ImageFileError(f"{path}: expected a video; it holds no pictures")
    return container


def write_video(
    path: str | os.PathLike[str], rate: Fraction | float | int, frames: Iterable[UInt8[Tensor, "3 height width"]]
) -> Path:
    """The path of an H.264 file (.mp4) of the frames, which are taken one at a time.

    The file is written aside and gets its name when it is whole. An odd last row or column is left out, which H.264
    cannot hold.

    Args:
        path: the file.
        rate: frames a second.
        frames: RGB, all of one size, at least one.

    Raises:
        MissingExtraError: PyAV is not installed.
        ValueError: another suffix, a rate that is not positive, no frames, or frames of several sizes.

    Example:
        >>> write_video("grey.mp4", 30, (torch.full((3, 480, 640), 128, dtype=torch.uint8) for _ in range(60)))
    """
    av, target = pyav(), Path(path)
    if target.suffix.lower() != ".mp4":
        raise ValueError(f"path must end in .mp4; got {target}")
    if not rate > 0:
        raise ValueError(f"rate must be a positive number of frames a second; got {rate}")
    with replacing(target) as aside, av.open(str(aside), "w", format="mp4") as container:
        container.metadata["comment"] = _COMMENT
        stream: Any = None
        size = None
        for pixels in frames:
            shape = tuple(pixels.shape[1:])
            if stream is None:
                size = shape
                exact = Fraction(rate).limit_denominator(_LARGEST_DENOMINATOR)
                stream = container.add_stream("libx264", rate=exact, options={"crf": _QUALITY})
                stream.height, stream.width = (side // 2 * 2 for side in shape)
                stream.pix_fmt = "yuv420p"
            if shape != size:
                raise ValueError(f"frames must have one size; got {list(shape)} after {list(size or ())}")
            even = pixels[:, : stream.height, : stream.width].permute(1, 2, 0).contiguous().cpu().numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        if stream is None:
            raise ValueError("frames must hold at least one frame; got none")
        container.mux(stream.encode())
    return target
