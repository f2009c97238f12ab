"""The same face from frame to frame, by the overlap of its boxes."""

from collections.abc import Sequence

from facerecon_torch.landmarks.detector import choose_faces
from facerecon_torch.structures import Detection

__all__ = ["FaceFollower"]

_LEAST_OVERLAP = 0.2  # intersection over union of two boxes of one face in consecutive frames
_PATIENCE = 15  # frames without the face after which the largest one is taken instead

_Box = tuple[float, float, float, float]


class FaceFollower:
    """The detections of one face, frame by frame: the largest face first, then that which overlaps it most.

    Example:
        >>> follower = FaceFollower()
        >>> track = [follower.next(faces) for faces in detector.detect(frames)]
    """

    def __init__(self) -> None:
        self._box: _Box | None = None
        self._missed = 0

    def next(self, detections: Sequence[Detection]) -> Detection | None:
        """The face in the next frame; None where it is not among the detections."""
        found = self._found(detections)
        if found is None:
            self._missed += 1
        else:
            self._box, self._missed = found.box, 0
        return found

    def _found(self, detections: Sequence[Detection]) -> Detection | None:
        if not detections:
            return None
        box = self._box
        if box is None or self._missed >= _PATIENCE:
            return choose_faces(detections, "largest")[0]
        nearest = max(detections, key=lambda face: _overlap(face.box, box))
        return nearest if _overlap(nearest.box, box) >= _LEAST_OVERLAP else None


def _overlap(one: _Box, other: _Box) -> float:
    """Intersection over union."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    common = max(width, 0.0) * max(height, 0.0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return common / (areas - common) if common else 0.0
