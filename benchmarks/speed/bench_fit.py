"""Camera (Eq. 6) and landmark fit (Eq. 7) of many faces at once, beside numpy with one face at a time."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facerecon_torch.fitting.camera import solve_camera
from facerecon_torch.fitting.landmark_fit import FitSpec, LandmarkFitter
from facerecon_torch.geometry.projection import project
from facerecon_torch.model.base import FaceModel
from facerecon_torch.structures import FaceParameters, LandmarkFit

from ..case import Case, Context, Group
from . import plain_numpy
from .data import Faces, default_model, draw_faces

TITLE = "camera and weights from 66 landmarks (solved in float64); 4 rounds; deviations in standard deviations"
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"batch": [4]},
    "quick": {"batch": [64]},
    "small": {"batch": [1, 64, 512]},
    "full": {"batch": [1, 64, 1024, 16384]},
}
_FEW = 4  # faces that the plain loop treats in a call
_SPEC = FitSpec(identity_penalty=128.0, expression_penalty=64.0)  # what training chooses for such landmarks
_FIXED = replace(_SPEC, contour="fixed")


def groups(context: Context) -> Iterator[Group]:
    """One group per batch size, and one for the camera."""
    model = default_model(context.device, context.dtype)
    plain = plain_numpy.PlainModel.of(model)
    fitters = {spec.contour: LandmarkFitter(model, spec) for spec in (_FIXED, _SPEC)}
    for batch in context.list("batch"):
        faces = draw_faces(model, batch)
        yield Group(name=f"camera of {batch} faces", axis="batch", x=batch, cases=_camera_cases(context, model, faces))
        few = faces.landmarks[:_FEW].double().cpu().numpy()
        known = [plain_numpy.fit_landmarks(plain, one, _FIXED) for one in few]
        rival = Case(
            name="numpy, one face at a time (contour fixed)",
            run=lambda few=few: [plain_numpy.fit_landmarks(plain, one, _FIXED) for one in few],
            items=len(few),
            unit="face",
            rival=True,
        )
        cases = [
            Case(
                name=f"landmark fit, contour {spec.contour}",
                run=lambda fitter=fitters[spec.contour], faces=faces: fitter.fit(faces.landmarks),
                items=batch,
                unit="face",
                error=lambda fit, faces=faces, known=known, spec=spec: _fit_errors(
                    model, fit, faces, known if spec.contour == "fixed" else None
                ),
                limits=_limits(context, spec),
            )
            for spec in (_FIXED, _SPEC)
        ]
        yield Group(name=f"landmark fit of {batch} faces", axis="batch", x=batch,
                    cases=[*cases, *([rival] if context.on_cpu else [])])  # fmt: skip


def _limits(context: Context, spec: FitSpec) -> dict[str, float]:
    """float32 landmarks and answers round; the solves are float64 in any case."""
    limits = {"median landmark residual, mm": 4.0}
    if spec.contour == "fixed":
        limits["off plain numpy, standard deviations"] = 1e-6 if context.dtype == torch.float64 else 2e-3
    return limits


def _camera_cases(context: Context, model: FaceModel, faces: Faces) -> list[Case]:
    marks = model.restrict(model.topology.landmark_vertices)  # type: ignore[union-attr]
    points = marks.vertices(faces.parameters.identity, faces.parameters.expression)
    exact = project(points, faces.camera)
    solid, flat = (t[:_FEW].double().cpu().numpy() for t in (points, exact))
    own = Case(
        name="camera",
        run=lambda: solve_camera(points, exact),
        items=len(points),
        unit="face",
        bytes=float((points.numel() + exact.numel() + 12 * len(points)) * points.element_size()),
        error=lambda camera: {
            "rotation off the truth, largest entry": float((camera.rotation - faces.camera.rotation).abs().max())
        },
        limits={"rotation off the truth, largest entry": 1e-9 if context.dtype == torch.float64 else 1e-5},
    )
    if not context.on_cpu:
        return [own]
    weights = np.ones(len(solid[0]))
    rival = Case(
        name="numpy lstsq + SVD, one face at a time",
        run=lambda: [plain_numpy.solve_camera(a, b, weights) for a, b in zip(solid, flat)],
        items=len(solid),
        unit="face",
        rival=True,
        error=lambda found: {
            "rotation off the truth, largest entry": max(
                float(np.abs(one.rotation - true.double().cpu().numpy()).max())
                for one, true in zip(found, faces.camera.rotation)
            )
        },
    )
    return [own, rival]


def _fit_errors(
    model: FaceModel, fit: LandmarkFit, faces: Faces, known: list[plain_numpy.PlainFace] | None
) -> dict[str, float]:
    found = {
        "median landmark residual, mm": float(fit.inner_residual.median()),
        "median off the truth, mm": _shape_error(model, fit.parameters, faces.parameters),
    }
    if known is not None:
        identity = torch.from_numpy(np.stack([face.identity for face in known]))
        expression = torch.from_numpy(np.stack([face.expression for face in known]))
        found["off plain numpy, standard deviations"] = max(
            _deviations(fit.parameters.identity, identity, model.identity_variance),
            _deviations(fit.parameters.expression, expression, model.expression_variance),
        )
    return found


def _deviations(own: Tensor, known: Tensor, variance: Tensor) -> float:
    # The gauge leaves one direction of almost no variance: measured against the mean variance it is rounding.
    spread = variance.double().cpu().sqrt().clamp_min(float(variance.double().mean().sqrt()) * 1e-2)
    return float(((own[: len(known)].double().cpu() - known) / spread).abs().max())


def _shape_error(model: FaceModel, own: FaceParameters, truth: FaceParameters) -> float:
    gap = model.vertices(*_first(own)) - model.vertices(*_first(truth))
    return float(torch.linalg.vector_norm(gap, dim=-1).mean(-1).median())


def _first(parameters: FaceParameters) -> tuple[Tensor, Tensor]:
    return parameters.identity[:64], parameters.expression[:64]
