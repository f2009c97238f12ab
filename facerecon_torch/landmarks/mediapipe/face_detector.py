"""Faces in whole pictures: boxes, six points and scores, from MediaPipe's short or full range network."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torchvision
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from facerecon_torch.landmarks.mediapipe.networks import VALUES, FullRangeNetwork, ShortRangeNetwork
from facerecon_torch.landmarks.mediapipe.regions import Window, chunks, face_windows, letterbox, to_image, whole
from facerecon_torch.landmarks.mediapipe.regions import tiles as tile_windows
from facerecon_torch.landmarks.mediapipe.weights import load_network
from facerecon_torch.runtime.precision import in_own_precision
from facerecon_torch.structures import TensorRecord

__all__ = ["RANGES", "FaceBoxes", "FaceDetector"]

RANGES: dict[str, tuple[type[ShortRangeNetwork] | type[FullRangeNetwork], float]] = {
    "short": (ShortRangeNetwork, 0.5),
    "full": (FullRangeNetwork, 0.6),
}
"""range -> (network, least score in the publisher's own pipeline)"""
_SAME_FACE = 0.3  # intersection over union from which two boxes are one face
_LOGIT_LIMIT = 100.0
_AROUND = 2.0  # side of the square in which a face is looked at again, over the longer side of its box
_SURE = 0.75  # least score there: 138 small faces of renders and portraits have 0.82 or more (docs/detectors.md)


@dataclass(frozen=True, kw_only=True)
class FaceBoxes(TensorRecord):
    """Faces of one picture, the surest first, in its px.

    Attributes:
        boxes: (x0, y0, x1, y1), from the brows to the chin.
        points: the person's right eye, left eye, tip of the nose, mouth, right ear, left ear.
        scores: in [0, 1].
    """

    boxes: Float[Tensor, "n 4"]
    points: Float[Tensor, "n 6 2"]
    scores: Float[Tensor, "n"]


class FaceDetector(nn.Module):
    """Finds faces in pictures of any sizes, in batches on the module's device.

    Args:
        range: `short`: large faces, as in portraits, 31 million multiplications a picture;
            `full`: smaller ones too, 117 million.
        min_score: faces below it are left out; None: 0.5 (short) or 0.6 (full).

    Raises:
        ValueError: another range, or a score outside [0, 1].

    Example:
        >>> faces = FaceDetector("full")([read_pixels("group.jpg")])[0]
        >>> faces.boxes, faces.scores
    """

    def __init__(self, range: str = "short", *, min_score: float | None = None) -> None:
        super().__init__()
        if range not in RANGES:
            raise ValueError(f"range must be {' or '.join(RANGES)}; got {range!r}")
        network, usual = RANGES[range]
        self.min_score = usual if min_score is None else float(min_score)
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score must lie in [0, 1]; got {min_score}")
        self.network = load_network(network, f"face_detector_{range}_range")
        self.anchors: Tensor
        self.register_buffer("anchors", _anchors(network.size, network.grids), persistent=False)

    @torch.no_grad()
    @in_own_precision
    def forward(self, images: Sequence[Tensor], *, tiles: bool = False) -> list[FaceBoxes]:
        """The faces of each picture, on the module's device.

        Args:
            images: [3, height, width], RGB bytes or floats in [0, 1], of any sizes.
            tiles: search nine overlapping tiles of half the side, for faces too small for the whole picture's input.
        """
        split = tile_windows if tiles else whole
        parts = [(k, part) for k, image in enumerate(images) for part in split(image.shape[-2], image.shape[-1])]
        if not parts:
            return []
        owner = torch.tensor([k for k, _ in parts]).to(self.anchors.device)
        points, scores, image = _merged(*self._search([(images[k], part) for k, part in parts], owner))
        return [
            FaceBoxes(boxes=points[rows, :2].flatten(1), points=points[rows, 2:], scores=scores[rows])
            for rows in (image == k for k in range(len(images)))
        ]

    @torch.no_grad()
    @in_own_precision
    def confirmed(self, images: Sequence[Tensor], faces: Sequence[FaceBoxes]) -> list[FaceBoxes]:
        """The faces of each picture that this detector also finds in a square of twice their side.

        Args:
            images: as in `forward`.
            faces: of each picture, from another search.
        """
        owner = [k for k, found in enumerate(faces) for _ in range(len(found))]
        if not owner:
            return list(faces)
        boxes = FaceBoxes.cat(list(faces)).boxes
        around = face_windows(boxes, [images[k].shape[-2:] for k in owner], _AROUND)
        parts = [(images[k], window) for k, window in zip(owner, around, strict=True)]
        points, scores, row = self._search(parts, torch.arange(len(owner), device=self.anchors.device))
        middle, box = points[:, :2].mean(1), boxes.to(points)[row]
        inside = ((middle > box[:, :2]) & (middle < box[:, 2:])).all(-1) & (scores >= _SURE)
        again = torch.zeros(len(owner), dtype=torch.bool, device=row.device)
        again[row[inside]] = True
        parted = torch.split(again, [len(found) for found in faces])
        return [found[rows] for found, rows in zip(faces, parted, strict=True)]

    def _search(
        self, parts: Sequence[tuple[Tensor, Window]], owner: Int[Tensor, "n"]
    ) -> tuple[Float[Tensor, "m 8 2"], Float[Tensor, "m"], Int[Tensor, "m"]]:
        """The candidates in parts of pictures, some parts at a time."""
        found = [
            self._candidates([image for image, _ in parts[rows]], [window for _, window in parts[rows]], owner[rows])
            for rows in chunks(len(parts), self.anchors.device)
        ]
        places, scores, image = (torch.cat(column) for column in zip(*found))
        return places, scores, image

    def _candidates(
        self, images: Sequence[Tensor], windows: Sequence[Window], owner: Int[Tensor, "n"]
    ) -> tuple[Float[Tensor, "m 8 2"], Float[Tensor, "m"], Int[Tensor, "m"]]:
        """Corners of boxes and six points in image px, scores, and the picture of each."""
        inputs, to_input = letterbox(images, windows, self.network.size, self.anchors.device)
        values, logits = self.network((2 * inputs - 1).to(self.network.stem.weight.dtype))
        scores = logits.clamp(-_LOGIT_LIMIT, _LOGIT_LIMIT).sigmoid()
        row, anchor = torch.nonzero(scores >= self.min_score, as_tuple=True)
        places = values[row, anchor].reshape(len(anchor), VALUES // 2, 2)  # centre, size, six points
        half = places[:, 1] / 2
        corners = torch.stack([places[:, 0] - half, places[:, 0] + half], 1)
        moved = torch.cat([corners, places[:, 2:]], 1) + self.anchors[anchor][:, None]
        return to_image(moved, to_input[row]), scores[row, anchor], owner[row]


def _anchors(size: int, grids: Sequence[tuple[int, int]]) -> Float[Tensor, "anchors 2"]:
    """The centres (x, y) of the anchors in px of the input, row by row."""
    parts = []
    for cells, count in grids:
        line = (torch.arange(cells, dtype=torch.float64) + 0.5) * (size / cells) - 0.5
        grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).reshape(-1, 2)
        parts.append(grid.repeat_interleave(count, 0))
    return torch.cat(parts)


def _merged(
    points: Float[Tensor, "m 8 2"], scores: Float[Tensor, "m"], image: Int[Tensor, "m"]
) -> tuple[Float[Tensor, "k 8 2"], Float[Tensor, "k"], Int[Tensor, "k"]]:
    """Candidates of one face as one, the surest first: means weighted by score (weighted non-maximum suppression).

    The first two points are the corners of the box.
    """
    boxes = points[:, :2].flatten(1)
    kept = torchvision.ops.batched_nms(boxes.float(), scores, image, _SAME_FACE)
    overlap = torchvision.ops.box_iou(boxes, boxes[kept])
    same: Bool[Tensor, "m k"] = (overlap > _SAME_FACE) & (image[:, None] == image[kept])
    same[kept, torch.arange(len(kept), device=kept.device)] = True
    first = same & (same.cumsum(1) == 1)  # a candidate belongs to the surest face that it overlaps
    weights = first * scores[:, None].to(points.dtype)
    merged = (weights.mT @ points.flatten(1)) / weights.sum(0)[:, None]
    return merged.reshape(len(kept), points.shape[1], 2), scores[kept], image[kept]
