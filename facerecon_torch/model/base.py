"""The interface of face models that fitting, features and the cascade use."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import deepcopy
from hashlib import sha256
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from facerecon_torch.model.named_weights import NamedExpressions
from facerecon_torch.model.topology import FaceTopology
from facerecon_torch.runtime.precision import in_own_precision

__all__ = ["FaceModel"]

_Model = TypeVar("_Model", bound="FaceModel")


class FaceModel(nn.Module, ABC):
    """A face shape as a function of identity weights (alpha) and expression weights (beta).

    The module has no parameters. Its arrays are buffers that follow `.to(...)`, and are not part of the `state_dict`:
    `model.io.save_model` stores them in a file of their own, and `sha256` identifies them. Weights and results have the
    dtype and the device of the model.

    Example:
        model = load_model("face.safetensors").to("cuda")
        vertices = model(model.identity_mean, model.expression_mean)  # [V, 3] in mm, model frame
    """

    identity_mean: Tensor  # [I]
    identity_variance: Tensor  # [I]
    expression_mean: Tensor  # [E]
    expression_variance: Tensor  # [E]
    named: NamedExpressions

    def __init__(self, topology: FaceTopology | None, expression_names: Sequence[str]) -> None:
        super().__init__()
        self._topology = topology
        self.expression_names = tuple(expression_names)
        if len(set(self.expression_names)) != len(self.expression_names):
            raise ValueError(f"expression_names must differ from each other; got {self.expression_names}")
        self.restricted = False  # True for a result of `restrict`
        self._sha256: str | None = None

    @property
    def topology(self) -> FaceTopology | None:
        """The tables of the mesh on the model's device; None for a restricted model."""
        return self._topology

    def whole_topology(self, needed: str) -> FaceTopology:
        """The tables of the mesh on the model's device.

        Args:
            needed: what requires them, as the message begins: `errors need a whole model`.

        Raises:
            ValueError: the model is restricted.
        """
        if self._topology is None:
            raise ValueError(f"{needed}; this one was restricted to some vertices")
        return self._topology

    @property
    @abstractmethod
    def n_vertices(self) -> int: ...

    @property
    def n_identity(self) -> int:
        return self.identity_mean.shape[0]

    @property
    def n_expression(self) -> int:
        return self.expression_mean.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.identity_mean.dtype

    @property
    def device(self) -> torch.device:
        return self.identity_mean.device

    def forward(
        self, identity: Float[Tensor, "*#b identities"], expression: Float[Tensor, "*#b expressions"]
    ) -> Float[Tensor, "*#b vertices 3"]:
        """The vertices in mm, model frame.

        Args:
            identity: Identity weights alpha.
            expression: Expression weights beta; the batch axes of both broadcast against each other.
        """
        return self.vertices(identity, expression)

    @abstractmethod
    def vertices(
        self, identity: Float[Tensor, "*#b identities"], expression: Float[Tensor, "*#b expressions"]
    ) -> Float[Tensor, "*#b vertices 3"]:
        """The vertices in mm, model frame; `model(identity, expression)` is the same."""

    @abstractmethod
    def identity_design(
        self, expression: Float[Tensor, "*b expressions"]
    ) -> tuple[Float[Tensor, "*b vertices 3 identities"], Float[Tensor, "*b vertices 3"]]:
        """The matrix and offset, in mm, with vertices = matrix @ alpha + offset for this expression."""

    @abstractmethod
    def expression_design(
        self, identity: Float[Tensor, "*b identities"]
    ) -> tuple[Float[Tensor, "*b vertices 3 expressions"], Float[Tensor, "*b vertices 3"]]:
        """The matrix and offset, in mm, with vertices = matrix @ beta + offset for this identity."""

    @abstractmethod
    def restrict(self: _Model, rows: Int[Tensor, "rows"]) -> _Model:
        """The model of the vertices `rows`, in that order and with repeats; its topology is None."""

    def normalised_expression(self, expression: Float[Tensor, "*b expressions"]) -> Float[Tensor, "*b expressions"]:
        """beta in the model's gauge, so that it does not depend on the face's size; without a gauge, beta itself."""
        return expression

    @in_own_precision
    def expression_weights(
        self, expression: Float[Tensor, "*b expressions"], naming: NamedExpressions | None = None
    ) -> Float[Tensor, "*b names"]:
        """The weights in [0, 1] of the named expressions, in the order of `expression_names` (named_weights.py).

        Args:
            expression: beta.
            naming: of estimates (`named.of_estimates`); None: beta is exact.
        """
        weights: Tensor = (self.named if naming is None else naming)(self.normalised_expression(expression))
        return weights

    @abstractmethod
    def factors(self) -> dict[str, Tensor]:
        """The arrays that define the shapes, by name. They are stored in the model's file and covered by its hash."""

    def fix_gauge(
        self, identity: Float[Tensor, "*#b identities"], expression: Float[Tensor, "*#b expressions"]
    ) -> tuple[Float[Tensor, "*#b identities"], Float[Tensor, "*#b expressions"]]:
        """The weights of the same shape in the model's gauge. A model without a gauge returns its arguments."""
        return identity, expression

    @property
    def sha256(self) -> str:
        """The hash of factors and topology as float32 and int64: equal on every device, in float32 and in float64.

        Texture coordinates of corners are left out: they change no shape, and models without them keep their hash.
        """
        if self._sha256 is None:
            self._sha256 = _hash_of(self)
        return self._sha256

    def _with_vertex_arrays(self: _Model, arrays: dict[str, Tensor]) -> _Model:
        """A model with other vertex arrays that shares all remaining arrays, but can be moved independently."""
        shared = {id(array): array for array in self.buffers()}
        model = deepcopy(self, {**shared, id(self._topology): self._topology})
        model._buffers.update(arrays)
        model._topology = None
        model.restricted = True
        model._sha256 = None
        return model

    def _apply(self: _Model, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _Model:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._topology is not None:
            self._topology = self._topology.map(fn)
        return self


def _hash_of(model: FaceModel) -> str:
    digest = sha256(type(model).__name__.encode())
    arrays = dict(model.factors())
    if model.topology is not None:
        tables = model.topology.tables()
        tables.pop("corner_uv", None)
        arrays |= {f"topology.{name}": table for name, table in tables.items()}
    for name, array in sorted(arrays.items()):
        canonical = array.detach().to("cpu", torch.float32 if array.is_floating_point() else torch.int64)
        digest.update(f"{name}{tuple(canonical.shape)}".encode())
        digest.update(_little_endian(canonical.contiguous().numpy()))
    return digest.hexdigest()


def _little_endian(array: Any) -> bytes:
    return bytes(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
