"""The result of every importer, and the form of its errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.errors import DataFileError, ModelFileError
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.bilinear import BilinearModel
from facerecon_torch.model.gauge import Gauge
from facerecon_torch.model.linear import LinearModel
from facerecon_torch.model.topology import FaceTopology

__all__ = ["ImportedModel", "as_model_errors", "refused", "require_plain"]

_LARGEST = 1e12
SMALLEST_FACE, LARGEST_FACE = 80.0, 600.0  # mm, longest side of the mean's bounding box, from a mask to a bust
_FACTORS: dict[str, tuple[str, ...]] = {
    "bilinear": ("core", "identity_rows", "expression_rows"),
    "linear": ("mean", "identity_basis", "expression_basis"),
}
_OPTIONAL: dict[str, tuple[str, ...]] = {
    "bilinear": (),
    "linear": (
        "identity_mean",
        "identity_variance",
        "expression_mean",
        "expression_variance",
        "expression_rows",
        "texture_mean",
        "texture_basis",
    ),
}


def refused(file: Path, field: str, expected: object, got: object) -> ModelFileError:
    """The error for one field of a model file, with the expected and the actual content."""
    return ModelFileError(f"{file}: {field}: expected {expected}; got {got}")


def require_plain(file: Path, field: str, values: NDArray[Any]) -> None:
    """Raise ModelFileError for a value that is not finite or exceeds 1e12, in any unit of length."""
    if not values.size:
        return
    low, high = float(values.min()), float(values.max())  # NaN if any value is NaN
    if not -_LARGEST <= low <= high <= _LARGEST:
        raise refused(file, field, f"finite numbers of at most {_LARGEST:g}", f"{low:g} to {high:g}")


@contextmanager
def as_model_errors(file: Path | None = None) -> Iterator[None]:
    """A context that turns DataFileError into ModelFileError, and with `file` also the errors of ImportedModel."""
    try:
        yield
    except DataFileError as error:
        raise ModelFileError(str(error)) from error
    except (TypeError, ValueError) as error:
        if file is None or isinstance(error, ModelFileError):
            raise
        raise refused(file, "model", "arrays that fit together and a face in mm", error) from error


@dataclass(frozen=True, eq=False, kw_only=True)
class ImportedModel:
    """The face model of a file, in mm and the model's axes, without a FaceTopology.

    `factors` are the array arguments of BilinearModel or LinearModel, by name.

    Raises:
        TypeError: An array is no float32 or float64 tensor.
        ValueError: Arrays are missing, unknown, not finite or do not fit together, a triangle has no vertex, or the
            mean face is not 80 to 600 mm long, because its unit is wrong.
    """

    kind: Literal["bilinear", "linear"]
    factors: dict[str, Tensor]
    triangles: Tensor  # [T, 3] int64, counter-clockwise seen from outside
    uv: Tensor | None  # [V, 2], texture coordinates in [0, 1], v upwards; None where the file has none
    expression_names: tuple[str, ...]  # one for every expression row; "neutral" is the face at rest
    topology_name: str  # key of the mesh in the lists of landmark vertices, as "facewarehouse_11510"
    summary: dict[str, object] = field(default_factory=dict)  # JSON values: counts, ranks, variance kept, errors in mm
    tables: dict[str, Tensor] = field(default_factory=dict)  # int64, the tables of a FaceTopology that the file has
    corner_uv: Tensor | None = None  # [T, 3, 2], as `uv`, of the triangles' corners; None for a mesh without seams

    def __post_init__(self) -> None:
        if self.kind not in _FACTORS:
            raise ValueError(f"kind must be one of {sorted(_FACTORS)}; got {self.kind!r}")
        missing = [name for name in _FACTORS[self.kind] if name not in self.factors]
        unknown = [name for name in self.factors if name not in _FACTORS[self.kind] + _OPTIONAL[self.kind]]
        if missing or unknown:
            raise ValueError(f"factors of a {self.kind} model: missing {missing}, unknown {unknown}")
        for name, array in self.factors.items():
            if not isinstance(array, Tensor) or array.dtype not in (torch.float32, torch.float64):
                actual = array.dtype if isinstance(array, Tensor) else type(array).__name__
                raise TypeError(f"{name} must be a float32 or float64 tensor; got {actual}")
            require_finite(name, array)
        self._require_shapes()
        _require_triangles(self.triangles, self.n_vertices)
        if self.uv is not None:
            require_shape("uv", self.uv, (self.n_vertices, 2))
            require_finite("uv", self.uv)
        if self.corner_uv is not None:
            require_shape("corner_uv", self.corner_uv, (len(self.triangles), 3, 2))
            require_finite("corner_uv", self.corner_uv)
        _require_size(self.mean_vertices())

    def _require_shapes(self) -> None:
        if self.kind == "linear":
            require_shape("mean", self.factors["mean"], (None, 3))
            for name in ("identity_basis", "expression_basis"):
                require_shape(name, self.factors[name], (self.n_vertices, 3, None))
            rows = self.factors.get("expression_rows")
            n_rows = 0 if rows is None else len(rows)
        else:
            core = self.factors["core"]
            require_shape("core", core, (None, 3, None, None))
            require_shape("identity_rows", self.factors["identity_rows"], (None, core.shape[2]))
            require_shape("expression_rows", self.factors["expression_rows"], (None, core.shape[3]))
            n_rows = len(self.factors["expression_rows"])
        if len(self.expression_names) != n_rows or len(set(self.expression_names)) != n_rows:
            raise ValueError(f"expression_names must be {n_rows} different names; got {self.expression_names}")

    @property
    def n_vertices(self) -> int:
        return len(self.factors["core" if self.kind == "bilinear" else "mean"])

    def mean_vertices(self) -> Tensor:
        """The mean face [V, 3] in mm; of a bilinear model, that of the mean rows of U_id and U_exp."""
        if self.kind == "linear":
            return self.factors["mean"]
        people, faces = (self.factors[name].mean(dim=0) for name in ("identity_rows", "expression_rows"))
        return (self.factors["core"] @ faces) @ people

    def make_model(self, topology: FaceTopology | None, *, gauge: Gauge = "fixed") -> FaceModel:
        """The model with a topology.

        Args:
            topology: Tables whose triangles are those of this mesh; it gets the texture coordinates of the corners.
            gauge: Gauge of a bilinear model.

        Raises:
            ValueError: The triangles are others, or the model's arrays do not fit together.
        """
        if topology is not None and not torch.equal(topology.triangles.cpu(), self.triangles.cpu()):
            raise ValueError(
                f"topology must have the {len(self.triangles)} triangles of {self.topology_name}; "
                f"got {len(topology.triangles)} others"
            )
        if topology is not None and self.corner_uv is not None:
            topology = replace(topology, corner_uv=self.corner_uv.to(topology.uv))
        names = self.expression_names
        if self.kind == "bilinear":
            return BilinearModel(**self.factors, topology=topology, expression_names=names, gauge=gauge)
        return LinearModel(**self.factors, topology=topology, expression_names=names)


def _require_triangles(triangles: Tensor, n_vertices: int) -> None:
    if triangles.dtype != torch.int64 or triangles.ndim != 2 or triangles.shape[1] != 3 or len(triangles) == 0:
        raise ValueError(f"triangles must be int64 [T, 3], not empty; got {triangles.dtype} {tuple(triangles.shape)}")
    low, high = (int(value) for value in triangles.aminmax())
    if low < 0 or high >= n_vertices:
        raise ValueError(f"triangles must count vertices in [0, {n_vertices}); got {low} to {high}")


def _require_size(mean: Tensor) -> None:
    longest = float((mean.amax(dim=0) - mean.amin(dim=0)).max())
    if not SMALLEST_FACE <= longest <= LARGEST_FACE:
        raise ValueError(
            f"the mean face must be {SMALLEST_FACE:g} to {LARGEST_FACE:g} mm long; got {longest:.6g} mm: "
            "the unit of the file is another than the one assumed"
        )
