"""eos's fit of shape, expression and pose to landmarks, for a list of images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.checks import require_count
from facerecon_torch.errors import ModelFileError
from facerecon_torch.external.eos.model_files import EosFiles, import_eos
from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER
from facerecon_torch.metrics.scan import SEVEN_POINTS
from facerecon_torch.structures import Camera

__all__ = ["EosFace", "EosFitter", "EosSettings", "fit_all", "setting_grid"]


@dataclass(frozen=True, kw_only=True)
class EosSettings:
    """Settings of eos's fit. The defaults are those of least similarity-aligned MAE on 40 training people
    among `setting_grid()` (docs/comparing.md); eos's own are 5, None, 30, None, 30 and the contour.

    Attributes:
        iterations: rounds over pose, contour, identity and expression.
        identity_coefficients: fitted ones, the largest first; None: all.
        identity_penalty: lambda of the identity.
        expression_coefficients: fitted ones; None: all.
        expression_penalty: lambda of the expression.
        contour: whether the contour's landmarks are used.
    """

    iterations: int = 5
    identity_coefficients: int | None = None
    identity_penalty: float | int = 3.0
    expression_coefficients: int | None = None
    expression_penalty: float | int = 10.0
    contour: bool = False

    def __post_init__(self) -> None:
        require_count("eos.settings.iterations", self.iterations, 1)
        for name in ("identity_coefficients", "expression_coefficients"):
            if getattr(self, name) is not None:
                require_count(f"eos.settings.{name}", getattr(self, name), 1)
        for name in ("identity_penalty", "expression_penalty"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"eos.settings.{name} must be positive; got {getattr(self, name)}")


def setting_grid() -> list[EosSettings]:
    """The settings that `eos.tune` tries."""
    own = EosSettings(
        iterations=5, identity_penalty=30.0, expression_penalty=30.0, contour=True,
        identity_coefficients=None, expression_coefficients=None,
    )  # fmt: skip
    plain = replace(own, contour=False)
    strengths = (1.0, 3.0, 10.0, 30.0, 90.0)
    penalties = [replace(plain, identity_penalty=a, expression_penalty=b) for a, b in product(strengths, strengths)]
    mild = replace(plain, identity_penalty=10.0, expression_penalty=3.0)
    counts = [replace(mild, identity_coefficients=n) for n in (10, 25)]
    counts += [replace(mild, expression_coefficients=n) for n in (8, 15)]
    rounds = [replace(mild, iterations=n) for n in (2, 10, 20)]
    contour = [replace(own, identity_penalty=n, expression_penalty=n) for n in (3.0, 30.0)]
    return [*penalties, *counts, *rounds, *contour]


@dataclass(frozen=True)
class EosFace:
    """One face: vertices in the frame and unit of eos's model, and eos's camera in px of the image."""

    vertices: Float[Tensor, "V 3"]
    camera: Camera


class EosFitter:
    """eos with one model.

    Args:
        files: of the model.

    Raises:
        ValueError: eos-py is not installed.
        ModelFileError: eos cannot read a file, or the mapping lacks one of the seven alignment points.

    Example:
        >>> EosFitter(write_eos_model(model, "eos")).fit(landmarks, 448, 448, EosSettings()).vertices
    """

    def __init__(self, files: EosFiles) -> None:
        self._eos: ModuleType = import_eos()
        self.model = _loaded(files.model, self._eos.morphablemodel.load_model)
        self._mapper = _loaded(files.mapping, self._eos.core.LandmarkMapper)
        self._contour: tuple[Any, ...] | None = None
        if files.contour is not None and files.edges is not None:
            self._contour = (
                _loaded(files.edges, self._eos.morphablemodel.load_edge_topology),
                _loaded(files.mapping, self._eos.fitting.ContourLandmarks.load),
                _loaded(files.contour, self._eos.fitting.ModelContour.load),
            )
        self.vertices = self._vertex_numbers()
        missing = [point for point in SEVEN_POINTS if point not in self.vertices]
        if missing:
            raise ModelFileError(
                f"{files.mapping}: expected vertices of iBUG points {SEVEN_POINTS}; {missing} have none"
            )
        self._counts = _coefficients(self.model)
        self.triangles = torch.tensor(self.model.get_shape_model().get_triangle_list(), dtype=torch.int64)

    def can_take(self, settings: EosSettings) -> bool:
        """Whether the model has as many coefficients as the settings fit."""
        asked = settings.identity_coefficients, settings.expression_coefficients
        return all(count is None or count <= own for count, own in zip(asked, self._counts, strict=True))

    def _vertex_numbers(self) -> dict[int, int]:
        """iBUG point (from 0) -> vertex."""
        named = self.model.get_landmark_definitions() or {}
        found = {point: self._mapper.convert(str(point + 1)) for point in range(68)}
        texts = {point: named.get(text, text) for point, text in found.items() if text is not None}
        return {point: int(text) for point, text in texts.items() if str(text).isdigit()}

    def fit(self, landmarks: Float[Tensor, "66 2"], width: int, height: int, settings: EosSettings) -> EosFace:
        """The face at landmarks in px of an image; missing ones are NaN.

        Raises:
            ValueError: a landmark of the contour is missing where the contour is used, or the settings fit more
                coefficients than the model has.
        """
        if not self.can_take(settings):
            raise ValueError(f"eos.settings must fit at most {self._counts} coefficients of this model; got {settings}")
        names = [IBUG_OF_PAPER[k] for k in range(len(landmarks))]
        points = [
            # a pixel's centre lies at 0.5 in eos's image
            self._eos.core.Landmark(str(name + 1), [float(x) + 0.5, float(y) + 0.5])
            for name, (x, y) in zip(names, landmarks.tolist())
            if x == x and y == y
        ]
        contour = self._contour if settings.contour else None
        if contour is not None and len(points) < len(names):
            raise ValueError("eos's contour needs every landmark; set eos.settings.contour=false")
        mesh, rendering, _, _ = self._eos.fitting.fit_shape_and_pose(
            self.model, points, self._mapper, width, height, *(contour or ()), settings.iterations,
            settings.identity_coefficients, float(settings.identity_penalty),
            settings.expression_coefficients, float(settings.expression_penalty),
        )  # fmt: skip
        vertices = torch.from_numpy(np.array(mesh.vertices, dtype=np.float32))
        return EosFace(vertices, _camera(rendering, width, height))


def _coefficients(model: Any) -> tuple[int, int]:
    """The numbers of coefficients of identity and expression."""
    expressions = model.get_expression_model()
    blendshapes = isinstance(expressions, list)
    count = len(expressions) if blendshapes else expressions.get_num_principal_components() if expressions else 0
    return model.get_shape_model().get_num_principal_components(), count


def _camera(rendering: Any, width: int, height: int) -> Camera:
    """eos's orthographic camera, whose image has its origin at the outer corner of the first pixel."""
    view, box = (
        torch.from_numpy(np.array(matrix, dtype=np.float64))
        for matrix in (rendering.get_modelview(), rendering.get_projection())
    )
    size = torch.tensor([width / 2, -height / 2], dtype=torch.float64)
    centre = torch.tensor([width / 2, height / 2], dtype=torch.float64)
    stretch = box.diagonal()[:2] * size
    shift = stretch * view[:2, 3] + box[:2, 3] * size + centre - 0.5
    return Camera(
        rotation=view[:3, :3].float(),
        scale=stretch[0].float(),
        translation=shift.float(),
        degenerate=torch.tensor(False),
    )


def _loaded(file: Path, load: Any) -> Any:
    try:
        return load(str(file))
    except Exception as error:  # of eos's C++: RuntimeError, also TypeError
        raise ModelFileError(f"{file}: eos cannot read it: {error}") from error


def fit_all(
    fitter: EosFitter, landmarks: Float[Tensor, "n 66 2"], sizes: Sequence[tuple[int, int]], settings: EosSettings
) -> list[EosFace]:
    """The faces at the landmarks of several images of (width, height)."""
    return [fitter.fit(points, *size, settings) for points, size in zip(landmarks, sizes, strict=True)]
