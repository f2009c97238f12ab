"""What a rival's process does: it holds patches and describes its share of them. Imports nothing heavy."""

import importlib

import numpy as np

__all__ = ["describe_share", "describe_with_skimage", "take_patches"]

_patches: dict[bool, np.ndarray] = {}  # by colour


def describe_with_skimage(patch: np.ndarray) -> np.ndarray:
    """9 bins, 2x2 blocks, L2-Hys, hard votes, the channel of largest gradient."""
    hog = importlib.import_module("skimage.feature").hog
    described: np.ndarray = hog(patch, 9, (16, 16), (2, 2), "L2-Hys", channel_axis=2 if patch.ndim == 3 else None)
    return described


def take_patches(colour: np.ndarray) -> None:
    """Patches [n, 64, 64, 3]; their green channel is the grey one."""
    _patches[True], _patches[False] = colour, np.ascontiguousarray(colour[..., 1])


def describe_share(share: int, shares: int, colour: bool) -> None:
    """Every `shares`-th patch, from number `share` on."""
    for patch in _patches[colour][share::shares]:
        describe_with_skimage(patch)
