"""Do CPU and CUDA, float32 and float64, and two runs agree? The whole chain on rendered faces, all choices fixed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from facerecon_torch.cascade.observe import FaceObserver
from facerecon_torch.commands.train.methods import train_methods
from facerecon_torch.features.joint import JointSpec
from facerecon_torch.fitting.landmark_fit import LandmarkFitter
from facerecon_torch.model.base import FaceModel
from facerecon_torch.regression import CascadeSpec, RidgeSpec
from facerecon_torch.structures import FaceParameters

from ..case import Case, Context, Group
from .data import default_model, draw_parameters
from .training_set import FIT, Size, make_samples, make_setup

TITLE = (
    "agreement: landmark fit, training (penalty and stages fixed) and inference; deviations in standard deviations of "
    "the model's weights; flips are contour landmarks that march to another vertex"
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"images": 24, "people": 6, "test_images": 8, "stages": 1},
    "quick": {"images": 0, "people": 6, "test_images": 8, "stages": 1},
    "small": {"images": 144, "people": 24, "test_images": 120, "stages": 2},
    "full": {"images": 600, "people": 60, "test_images": 1000, "stages": 3},
}
_CPU = torch.device("cpu")
_RELATIVE_PENALTY = 1.0
_TOLERATED = 1e-3  # standard deviations
_VERTICES_MM = 1e-2


@dataclass(frozen=True)
class Answer:
    """What one device and dtype say, on the CPU in float64."""

    parameters: Tensor  # [n, p]
    fitted: Tensor
    vertices: Tensor  # of the given weights, not of the answers
    contour: Tensor  # of the landmark fit


def groups(context: Context) -> Iterator[Group]:
    """On the CPU float32 against float64 and two runs; on CUDA both dtypes against the CPU."""
    if not context.sizes["images"]:
        return
    work = partial(answer, context.sizes)
    pairs = [(torch.float64, torch.float64), (torch.float32, torch.float32)]
    if context.on_cpu:
        pairs = [(torch.float32, torch.float64)]
    for own, other in pairs:
        reference = work(_CPU, other)
        name = f"{context.device.type} {_word(own)} against cpu {_word(other)}"
        limits: dict[str, float] = {"vertices, largest mm": _VERTICES_MM}
        if own == torch.float64:
            limits["parameters, largest deviation"] = _TOLERATED
        else:
            limits["share of faces off by more than 1e-3"] = 1e-3
        case = Case(name=name, run=partial(work, context.device, own), items=int(context.sizes["test_images"]),
                    unit="face", limits=limits,
                    error=lambda found, reference=reference: differences(found, reference))  # fmt: skip
        yield Group(name="agreement", cases=[case], rounds=1)
    case = Case(name=f"two runs on {context.device.type}, deterministic", run=partial(_twice, work, context),
                items=2 * int(context.sizes["test_images"]), unit="face", limits={"largest difference": 0.0},
                error=lambda both: {"largest difference": _largest(*both)})  # fmt: skip
    yield Group(name="repetition", cases=[case], rounds=1)


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@torch.no_grad()
def answer(sizes: dict[str, Any], device: torch.device, dtype: torch.dtype) -> Answer:
    """Fit, train on some people and reconstruct others; the same pictures everywhere, rendered on the CPU."""
    model, spec = default_model(device, dtype), JointSpec()
    train = make_samples(model, Size(int(sizes["images"]), int(sizes["people"])), spec.hog, rendered_on=_CPU)
    size = Size(int(sizes["test_images"]), max(2, int(sizes["test_images"]) // 8), seed=5)
    test = make_samples(model, size, spec.hog, rendered_on=_CPU)
    setup = make_setup(
        model,
        CascadeSpec(stages=int(sizes["stages"]), cross_fit=False, ridge=RidgeSpec(relative_penalty=_RELATIVE_PENALTY)),
    )
    outcome = train_methods(setup, train, {"test": test}, names=("cascade",))
    fitter = LandmarkFitter(model, FIT)
    fit = fitter.fit(test.landmarks)
    observer = FaceObserver(fitter, test, fit.camera, spec, n_identity=model.n_identity)
    flat = outcome.reconstructor.cascade.run(fit.parameters.flat, observer)
    given = draw_parameters(model, 64, seed=17)
    shown = model.vertices(given.identity, given.expression)
    host = (value.double().cpu() for value in (flat, fit.parameters.flat, shown))
    return Answer(*host, fit.contour_vertices.cpu())


def differences(own: Answer, other: Answer) -> dict[str, float]:
    """How far two answers lie from one another."""
    spread = _spread()
    off = ((own.parameters - other.parameters) / spread).abs().amax(1)
    fitted = ((own.fitted - other.fitted) / spread).abs().amax(1)
    flips = (own.contour != other.contour).any(1)
    found = {
        "vertices, largest mm": float(torch.linalg.vector_norm(own.vertices - other.vertices, dim=-1).max()),
        "parameters, largest deviation": float(off.max()),
        "parameters, median deviation": float(off.median()),
        "landmark fit, largest deviation": float(fitted.max()),
        "share of faces off by more than 1e-3": float((off > _TOLERATED).double().mean()),
        "faces with a contour flip": float(flips.sum()),
    }
    same = off[~flips]
    return found | {"parameters without flips, largest": float(same.max()) if len(same) else 0.0}


def _spread() -> Tensor:
    """The gauge leaves one direction of almost no variance: measured against the mean variance it is rounding."""
    model: FaceModel = default_model(_CPU, torch.float64)
    variances = FaceParameters(identity=model.identity_variance[None], expression=model.expression_variance[None])
    floors = [1e-2 * float(v.mean().sqrt()) for v in (variances.identity, variances.expression)]
    parts = (variances.identity.sqrt().clamp_min(floors[0]), variances.expression.sqrt().clamp_min(floors[1]))
    return torch.cat(parts, 1)


def _largest(one: Answer, two: Answer) -> float:
    return max(float((one.parameters - two.parameters).abs().max()), float((one.fitted - two.fitted).abs().max()))


def _twice(work: Any, context: Context) -> tuple[Answer, Answer]:
    with _deterministic():
        return work(context.device, context.dtype), work(context.device, context.dtype)


@contextmanager
def _deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
