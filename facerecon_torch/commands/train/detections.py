"""Landmarks that a detector finds on the photographs of a set."""

import hashlib
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from facerecon_torch.config.runtime import RuntimeSpec
from facerecon_torch.errors import DataFileError, ImageFileError, LandmarkFileError
from facerecon_torch.formats.checked_columns import load_columns, save_columns
from facerecon_torch.images.loader import LoadError, decoded_ahead, read_content
from facerecon_torch.landmarks.batches import DETECTED_TOGETHER, detect_in_batches
from facerecon_torch.landmarks.detector import choose_faces
from facerecon_torch.landmarks.mediapipe_detector import MediapipeDetector
from facerecon_torch.landmarks.registry import build_detector
from facerecon_torch.landmarks.scheme import to_paper66
from facerecon_torch.landmarks.source import LandmarkSourceSpec
from facerecon_torch.runtime.ranks import Ranks
from facerecon_torch.synthetic.dataset import SyntheticSet

__all__ = ["detect_rendered", "detect_set"]

_KEPT_VERSION = 1  # of kept points; raised where the package's detector finds others on the same picture
_COLUMN = "landmarks"
_log = logging.getLogger(__name__)


def detect_rendered(
    rendered: SyntheticSet, folder: Path, source: LandmarkSourceSpec, runtime: RuntimeSpec, ranks: Ranks
) -> Float[Tensor, "n 66 2"]:
    """As `detect_set`, for the photographs of the rendered set in `folder`.

    Points of the package's own detector are kept in that folder and are the same in every later run with the same
    options on the same kind of device. Raises what detecting raises.
    """
    if source.source != MediapipeDetector.name:
        return detect_set(rendered.images, source, runtime, ranks)
    file = folder / f"landmarks-{_key(source, runtime.own_device())}.safetensors"
    (kept,) = ranks.share((_kept(file, len(rendered)) if ranks.is_first else None,))  # not a tensor everywhere
    if kept is not None:
        return kept
    points = detect_set(rendered.images, source, runtime, ranks)
    if ranks.is_first:
        try:
            save_columns(file, {_COLUMN: points})
        except OSError as error:  # a set of somebody else, or a full disk: the points are at hand all the same
            _log.warning("landmarks are not kept for later runs: %s", error)
    return points


def detect_set(
    images: Sequence[Path], source: LandmarkSourceSpec, runtime: RuntimeSpec, ranks: Ranks
) -> Float[Tensor, "n 66 2"]:
    """A detector's landmarks of the largest face in every photograph, px; NaN where it cannot be read or shows none.

    Raises what the detector raises.
    """
    device = runtime.own_device()
    detector = build_detector(source.source, **source.options(device))
    own = range(ranks.rank, len(images), ranks.world)
    points = torch.full((len(own), 66, 2), torch.nan, dtype=torch.float32)
    shown = runtime.progress and ranks.is_first
    files = [images[k] for k in own]
    with (
        ThreadPoolExecutor(runtime.workers) as pool,
        tqdm(total=len(own), desc="landmarks", unit="image", disable=not shown) as bar,
    ):
        decoded = decoded_ahead(files, pool, read_content, ahead=2 * DETECTED_TOGETHER)
        loaded = ((path, image.cause if isinstance(image, LoadError) else image) for path, image in decoded)
        for row, (_, found) in enumerate(detect_in_batches(detector, loaded)):
            bar.update()
            if isinstance(found, (ImageFileError, LandmarkFileError)):
                _log.error("left out: %s", found)
            elif isinstance(found, Exception):
                raise found
            elif found[1]:
                points[row] = to_paper66(choose_faces(found[1], "largest")[0].points[None])[0]
    places = torch.cat([torch.arange(rank, len(images), ranks.world) for rank in range(ranks.world)])
    return ranks.gather(points.to(device)).cpu()[torch.argsort(places)]


def _key(source: LandmarkSourceSpec, device: torch.device) -> str:
    """A digest of everything beside the photographs that the points of the package's detector depend on."""
    detector = MediapipeDetector(**source.options(device))
    digest = hashlib.sha256()
    for file in detector.weight_files():
        digest.update(file.read_bytes())
    depends = (_KEPT_VERSION, device.type, detector.tiles, detector.min_score, detector.min_face, detector.max_faces)
    digest.update(json.dumps(depends).encode())
    return digest.hexdigest()[:16]


def _kept(file: Path, count: int) -> Float[Tensor, "n 66 2"] | None:
    """The points of an earlier run, None where there are none or the file is damaged."""
    if not file.is_file():
        return None
    try:
        points = load_columns(file)[0][_COLUMN]
    except (DataFileError, KeyError) as error:
        _log.warning("%s: landmarks are found again: %s", file, error)
        return None
    return points if points.shape == (count, 66, 2) else None
