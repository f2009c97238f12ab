"""The content of one input."""

import hashlib
import os
from pathlib import Path

from facerecon_torch.commands.infer.inputs.entry import Entry
from facerecon_torch.commands.infer.inputs.tar import read_member
from facerecon_torch.commands.infer.inputs.video import VideoFrames
from facerecon_torch.errors import ImageFileError
from facerecon_torch.images.loader import ImageContent, content_of, read_content
from facerecon_torch.images.open import largest_file

__all__ = ["EntryReader"]

_PIECE = 2**20  # bytes hashed at a time


class EntryReader:
    """Reads the content of entries, on any thread.

    Args:
        max_megapixels: larger images are refused.
    """

    def __init__(self, max_megapixels: float | int) -> None:
        self._most = max_megapixels
        self._videos = VideoFrames(max_megapixels)

    def __call__(self, entry: Entry) -> ImageContent:
        """The content of an entry. Raises ImageFileError."""
        if entry.problem is not None:
            raise ImageFileError(entry.problem)
        if entry.frame is not None:
            pixels = self._videos.read(entry)
            return ImageContent(entry.place, pixels, None, pixels.nbytes)
        if entry.offset is not None:
            return content_of(entry.place, read_member(entry, largest_file(self._most)))
        return read_content(Path(entry.path), max_megapixels=self._most)

    def digest(self, entry: Entry) -> tuple[int | None, str | None]:
        """Bytes and SHA-256 of what stands at an entry without faces, as far as it is a file that can be read and is
        no larger than an image may be. Of a frame of a video, None."""
        try:
            if entry.frame is not None:
                return None, None
            if entry.offset is not None:
                data = read_member(entry, largest_file(self._most))
                return len(data), hashlib.sha256(data).hexdigest()
            size = os.stat(entry.path).st_size
            if not os.path.isfile(entry.path) or size > largest_file(self._most):
                return size, None
            digest = hashlib.sha256()
            with open(entry.path, "rb") as file:
                while piece := file.read(_PIECE):
                    digest.update(piece)
            return size, digest.hexdigest()
        except (OSError, ValueError):
            return None, None

    def close(self) -> None:
        """Close the video that is open."""
        self._videos.close()
