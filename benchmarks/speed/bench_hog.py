"""HOG of 66 landmarks on 320 x 320 crops: dense maps and gathers, patches, and other people's HOG."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facerecon_torch.features.hog import HogSpec, describe_patches, gather_hog, hog, hog_maps, patch_hog
from facerecon_torch.features.hog.gradients import differences, kornia_gradients, repeat_border

from ..case import Case, Context, Group
from .data import draw_points, waves
from .hog_rivals import cut, rivals
from .hog_worker import describe_with_skimage

TITLE = "HOG around landmarks of 320 x 320 crops (uoctti cell 16: 496 numbers a landmark)"
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"images": 2, "batch": [1], "landmarks": [66], "stages": [1], "patches": 0},
    "quick": {"images": 2, "batch": [], "landmarks": [], "stages": [5], "patches": 0},
    "small": {"images": 8, "batch": [1, 8, 32], "landmarks": [17, 66], "stages": [1, 3, 5], "patches": 1},
    "full": {
        "images": 8, "batch": [1, 8, 64, 256], "landmarks": [17, 34, 66, 132], "stages": [1, 2, 5, 10], "patches": 1,
    },
}  # fmt: skip
_LANDMARKS = 66
_EXACT = 1e-5
_ONE = "one image a call"
_DALAL = HogSpec(variant="dalal", vote="hard")
_GREY = HogSpec(variant="dalal", vote="hard", colour=False)
_UOCTTI = HogSpec()


def groups(context: Context) -> Iterator[Group]:
    """Ours beside rivals, then scaling over batch, landmarks and stages."""
    images = int(context.sizes["images"])
    crops, points = _data(context, images, _LANDMARKS)
    with torch.inference_mode(), rivals(images, _LANDMARKS) if context.on_cpu else nullcontext([]) as others:
        yield Group(name=f"{images} images", cases=[*_own(crops, points), *(c for c in others if "grey" not in c.name)])
        own = _case(f"dense dalal grey, {_ONE}", partial(_one_by_one, crops, points, _GREY), crops, points, _GREY)
        yield Group(name=f"{images} grey images", cases=[own, *(c for c in others if "grey" in c.name)])
        yield Group(name=f"whole cascades of {images} images", cases=[_stages(crops, points, 5)])
        for batch in context.list("batch"):
            yield _scaled(context, "batch", batch, batch, _LANDMARKS)
        for landmarks in context.list("landmarks"):
            yield _scaled(context, "landmarks", landmarks, images, landmarks)
        for stages in context.list("stages"):
            yield Group(name=f"{stages} stages, {images} images", axis="stages", x=stages,
                        cases=[_stages(crops, points, stages)])  # fmt: skip
        if context.sizes["patches"]:
            cases = [
                _case(f"patches, halo={halo}", partial(patch_hog, crops, points, _UOCTTI, halo=halo), crops, points)
                for halo in (False, True)
            ]
            yield Group(name=f"patches of {images} images", cases=cases, rounds=3)
            yield Group(name=f"image gradients of {images} images", cases=list(_image_gradients(crops)))


def _data(context: Context, images: int, landmarks: int) -> tuple[Tensor, Tensor]:
    like = {"device": context.device, "dtype": context.dtype}
    return waves(images).to(**like), draw_points(images, landmarks).to(**like)


def _own(crops: Tensor, points: Tensor) -> list[Case]:
    maps = hog_maps(crops, _UOCTTI)
    return [
        _case(f"dense dalal, {_ONE}", partial(_one_by_one, crops, points, _DALAL), crops, points, _DALAL,
              error=lambda _: _dalal_errors(crops, points),
              limits=_dalal_limits()),
        _case(f"dense uoctti, {_ONE}", partial(_one_by_one, crops, points, _UOCTTI), crops, points),
        _case("dense uoctti, all images in one call", partial(hog, crops, points, _UOCTTI), crops, points,
              error=lambda found: _uoctti_errors(found, crops, points),
              limits={"stride 1 against patch(halo), largest": _EXACT}),
        Case(name="maps alone", run=partial(hog_maps, crops, _UOCTTI), items=len(crops), unit="image",
             bytes=float((crops.numel() + maps.histograms.numel()) * crops.element_size())),
        Case(name="gather alone (every further stage)", run=lambda: gather_hog(maps, points, _UOCTTI),
             items=len(crops), unit="image",
             bytes=float((maps.histograms.numel() + points.shape[0] * points.shape[1] * _UOCTTI.length)
                         * crops.element_size())),
    ]  # fmt: skip


def _image_gradients(crops: Tensor) -> Iterator[Case]:
    """Image gradients by kornia (for crops that need a slope) and by slices; and maps with their slope."""
    with torch.inference_mode(False):
        leaf = crops.clone().requires_grad_()

    def fused(images: Tensor) -> tuple[Tensor, Tensor]:
        return differences(repeat_border(images))

    def with_slope(function: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
        with torch.inference_mode(False), torch.enable_grad():
            torch.autograd.grad(sum(part.sum() for part in function(leaf)), leaf)

    one = {"items": len(crops), "unit": "image", "bytes": float(3 * crops.numel() * crops.element_size())}
    for name, function in (("kornia", kornia_gradients), ("slices", fused)):
        yield Case(name=f"{name}, values", run=partial(function, crops), **one)
        yield Case(name=f"{name}, values and slopes", run=partial(with_slope, function), **one)
    maps = partial(with_slope, lambda images: (hog_maps(images, _UOCTTI).histograms,))
    yield Case(name="maps by kornia, values and slopes", run=maps, items=len(crops), unit="image")


def _one_by_one(crops: Tensor, points: Tensor, spec: HogSpec) -> None:
    for i in range(len(crops)):
        hog(crops[i : i + 1], points[i : i + 1], spec)


def _case(
    name: str, run: Callable[[], Any], crops: Tensor, points: Tensor, spec: HogSpec = _UOCTTI, **more: Any
) -> Case:
    """Floor: crops read once, descriptors written once."""
    numbers = crops.numel() + points.shape[0] * points.shape[1] * spec.length
    return Case(name=name, run=run, items=len(crops), unit="image", bytes=float(numbers * crops.element_size()), **more)


def _stages(crops: Tensor, points: Tensor, stages: int) -> Case:
    """Maps once, then a gather per stage, at points that move."""

    def run() -> list[Tensor]:
        maps = hog_maps(crops, _UOCTTI)
        return [gather_hog(maps, points + k, _UOCTTI) for k in range(stages)]

    numbers = crops.numel() + stages * points.shape[0] * points.shape[1] * _UOCTTI.length
    return Case(name="dense uoctti: maps + gathers of all stages", run=run, items=len(crops), unit="image",
                bytes=float(numbers * crops.element_size()))  # fmt: skip


def _scaled(context: Context, axis: str, x: int, images: int, landmarks: int) -> Group:
    crops, points = _data(context, images, landmarks)
    case = _case("dense uoctti, all in one call", partial(hog, crops, points, _UOCTTI), crops, points)
    return Group(name=f"{images} images, {landmarks} landmarks", cases=[case], axis=axis, x=x)


def _dalal_limits() -> dict[str, float]:
    """In colour a pixel may vote for another of two channels that are all but equally steep."""
    known = {"stride 1 against patch(halo), largest": _EXACT}
    if importlib.util.find_spec("skimage") is None:
        return known
    return known | {"grey patch against scikit-image, largest": _EXACT, "patch against scikit-image, mean": 10 * _EXACT}


def _dalal_errors(crops: Tensor, points: Tensor) -> dict[str, float]:
    """The descriptors that were timed against scikit-image, against patches, and what stride 4 costs."""
    found = _against_patches(hog(crops[:1], points[:1], _DALAL), crops, points, _DALAL)
    if importlib.util.find_spec("skimage") is None:
        return found
    patches = cut(len(crops), points.shape[1])[0]
    off = {colour: _off_skimage(patches if colour else patches[..., 1:2], crops) for colour in (True, False)}
    return found | {
        "grey patch against scikit-image, largest": float(off[False].max()),
        "patch against scikit-image, mean": float(off[True].mean()),
    }


def _off_skimage(patches: np.ndarray, like: Tensor) -> Tensor:
    rival = np.stack([describe_with_skimage(patch if patch.shape[2] == 3 else patch[..., 0]) for patch in patches])
    own = describe_patches(torch.from_numpy(patches).permute(0, 3, 1, 2).to(like), _DALAL).double().cpu()
    return (own - torch.from_numpy(rival).double()).abs()


def _uoctti_errors(found: Tensor, crops: Tensor, points: Tensor) -> dict[str, float]:
    return _against_patches(found[:1], crops, points, _UOCTTI)


def _against_patches(found: Tensor, crops: Tensor, points: Tensor, spec: HogSpec) -> dict[str, float]:
    crops, points = crops[:1], points[:1]
    fine = HogSpec(variant=spec.variant, vote=spec.vote, stride=1)
    exact = patch_hog(crops, points, fine, halo=True)
    return {
        "stride 1 against patch(halo), largest": float((hog(crops, points, fine) - exact).abs().max()),
        "stride 4 against patch(halo), mean": float((found - exact).abs().mean()),
        "mean magnitude": float(exact.abs().mean()),
    }
