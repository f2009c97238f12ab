"""Other people's HOG of the same patches or crops: scikit-image in processes, OpenCV and dlib where installed."""

import importlib
import importlib.util
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from ..case import Case
from .data import draw_points, waves
from .hog_worker import describe_share, take_patches

__all__ = ["cut", "rivals"]

_PATCH = 64
SKIMAGE = "scikit-image dalal, as many processes as cores"


def cut(images: int, landmarks: int) -> np.ndarray:
    """The patches themselves [images, landmarks, 64, 64, 3]."""
    half = _PATCH // 2
    pictures, points = waves(images), draw_points(images, landmarks)
    cut_out = [
        [crop[:, y - half : y + half, x - half : x + half].permute(1, 2, 0).numpy() for x, y in around]
        for crop, around in zip(pictures, points.long().tolist())
    ]
    return np.ascontiguousarray(np.array(cut_out))


@contextmanager
def rivals(images: int, landmarks: int) -> Iterator[list[Case]]:
    """The rivals' cases, on the pictures of `data.waves` and points of `data.draw_points`; a pool of processes that
    hold the patches already stands behind scikit-image's."""
    told: dict[str, Any] = {"items": images, "unit": "image", "rival": True}
    others = [_opencv(images, landmarks, told), _dlib(images, told)]
    if importlib.util.find_spec("skimage") is None:
        yield [_absent(SKIMAGE, "scikit-image", told), *others]
        return
    processes = os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")
    patches = cut(images, landmarks)
    with context.Pool(processes, take_patches, (patches.reshape(-1, *patches.shape[2:]),)) as pool:
        cases = [
            Case(
                name=SKIMAGE + ("" if colour else ", grey"),
                run=partial(pool.starmap, describe_share, [(k, processes, colour) for k in range(processes)], 1),
                **told,
            )
            for colour in (True, False)
        ]
        yield [*cases, *others]


def _absent(name: str, package: str, told: dict[str, Any]) -> Case:
    return Case(name=name, run=lambda: None, missing=f"{package} is not installed", **told)


def _opencv(images: int, landmarks: int, told: dict[str, Any]) -> Case:
    """cv2.HOGDescriptor with the same cells and blocks: 9 bins, 16 px, L2-Hys, one call a patch."""
    name = "OpenCV HOGDescriptor, patch by patch"
    try:
        cv2 = importlib.import_module("cv2")
        describe = cv2.HOGDescriptor((_PATCH, _PATCH), (32, 32), (16, 16), (16, 16), 9).compute
    except (ImportError, AttributeError):  # version 5 keeps it in a module that wheels leave out
        return _absent(name, "OpenCV with HOGDescriptor", told)
    patches = (cut(images, landmarks) * 255).astype(np.uint8)
    flat = [np.ascontiguousarray(patch) for patch in patches.reshape(-1, *patches.shape[2:])]
    return Case(name=name, run=lambda: [describe(patch) for patch in flat], **told)


def _dlib(images: int, told: dict[str, Any]) -> Case:
    """dlib's fhog (UoCTTI, cells of 16 px) of the whole crop: one map, no landmarks."""
    name = "dlib fhog, one map of the crop"
    try:
        describe = importlib.import_module("dlib").extract_fhog
    except (ImportError, AttributeError):  # dlib-bin has no Python name for it
        return _absent(name, "dlib with extract_fhog", told)
    pictures = (waves(images).permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)
    return Case(name=name, run=lambda: [describe(np.ascontiguousarray(one), 16) for one in pictures], **told)
