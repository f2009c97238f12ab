"""Rendered faces as a training set: crops described once, landmarks, truth; without a file."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from facerecon_torch.cascade.checkpoint import ReconstructorSpec
from facerecon_torch.cascade.feature_cache import encode_crops
from facerecon_torch.commands.train.first_stage import TrainSetup
from facerecon_torch.commands.train.samples import Samples
from facerecon_torch.features.hog import HogSpec
from facerecon_torch.features.joint import JointSpec
from facerecon_torch.fitting.landmark_fit import FitSpec
from facerecon_torch.model.base import FaceModel
from facerecon_torch.regression import CascadeSpec

from .data import default_model, draw_faces, render

__all__ = ["FIT", "Size", "make_samples", "make_setup"]

_CHUNK = 32
FIT = FitSpec(identity_penalty=128.0, expression_penalty=64.0)  # what training chooses for landmarks off by 1.5 px


@dataclass(frozen=True)
class Size:
    """Photographs of so many people, who follow one another in the set."""

    images: int
    people: int
    seed: int = 0


@lru_cache(maxsize=2)
def _pictures(size: Size, device: torch.device) -> Tensor:
    """Crops [n, 3, 320, 320] of 8 bits on the CPU; rendered on `device`, and once only."""
    model = default_model(device, torch.float32)
    faces = draw_faces(model, size.images, people=size.people, seed=size.seed)
    parts = [render(model, faces, slice(k, min(k + _CHUNK, size.images))) for k in range(0, size.images, _CHUNK)]
    return torch.cat([(part * 255).round().to(torch.uint8).cpu() for part in parts])


def make_samples(model: FaceModel, size: Size, hog: HogSpec, *, rendered_on: torch.device | None = None) -> Samples:
    """The set on the device and in the dtype of `model`; the same pictures for all devices that name one renderer.

    The true mesh M is the model's own, so that M and S* agree and errors measure landmark noise and regression alone.
    """
    pictures = _pictures(size, rendered_on or model.device)
    faces = draw_faces(model, size.images, people=size.people, seed=size.seed)
    rows = torch.arange(size.images, device=model.device)
    parts = [encode_crops(part.to(model.device, model.dtype) / 255, hog) for part in torch.split(pictures, _CHUNK)]
    meshes = torch.cat([
        model.vertices(faces.parameters.identity[k : k + 256], faces.parameters.expression[k : k + 256])
        for k in range(0, size.images, 256)
    ])  # fmt: skip
    return Samples(
        name="rendered",
        landmarks=faces.landmarks,
        table=torch.cat(parts),
        rows=rows,
        hog=hog,
        parameters=faces.parameters,
        subjects=faces.subjects,
        places=rows,
        meshes=meshes,
    )


def make_setup(model: FaceModel, cascade: CascadeSpec, features: JointSpec | None = None) -> TrainSetup:
    """The configuration that users run: features=uoctti16, fitting=marching, cascades that start at the fit."""
    return TrainSetup(model, ReconstructorSpec(fit=FIT, features=features or JointSpec()), cascade)
