"""The one interface of face models: what fitting, features and the cascade may ask of any of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import deepcopy
from hashlib import sha256
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from facerecon_torch.model.topology import FaceTopology

__all__ = ["FaceModel"]

_Model = TypeVar("_Model", bound="FaceModel")


class FaceModel(nn.Module, ABC):
    """A face shape in identity (alpha) and expression (beta) weights; vertices in mm, model frame.

    A module without parameters: its arrays are buffers and follow `.to(...)`. They are not persistent,
    because models are saved by `model.native` and never inside another module's state. All weights and
    answers have the dtype of the model and live on its device. Batch axes of identity and expression
    broadcast against each other.
    """

    identity_mean: Tensor  # [I]
    identity_variance: Tensor  # [I]
    expression_mean: Tensor  # [E]
    expression_variance: Tensor  # [E]

    def __init__(self, topology: FaceTopology | None, expression_names: Sequence[str]) -> None:
        super().__init__()
        self._topology = topology
        self.expression_names = tuple(expression_names)
        if len(set(self.expression_names)) != len(self.expression_names):
            raise ValueError(f"expression_names must differ from each other; got {self.expression_names}")
        self.restricted = False  # True for an answer of `restrict`
        self._sha256: str | None = None

    @property
    def topology(self) -> FaceTopology | None:
        """Tables of the mesh, on the model's device; None for a restricted model."""
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

    @abstractmethod
    def vertices(
        self, identity: Float[Tensor, "*#b identities"], expression: Float[Tensor, "*#b expressions"]
    ) -> Float[Tensor, "*#b vertices 3"]:
        """Vertices in mm, model frame."""

    @abstractmethod
    def identity_design(
        self, expression: Float[Tensor, "*b expressions"]
    ) -> tuple[Float[Tensor, "*b vertices 3 identities"], Float[Tensor, "*b vertices 3"]]:
        """(matrix, offset) in mm with vertices = matrix @ alpha + offset for this expression."""

    @abstractmethod
    def expression_design(
        self, identity: Float[Tensor, "*b identities"]
    ) -> tuple[Float[Tensor, "*b vertices 3 expressions"], Float[Tensor, "*b vertices 3"]]:
        """(matrix, offset) in mm with vertices = matrix @ beta + offset for this identity."""

    @abstractmethod
    def restrict(self: _Model, rows: Int[Tensor, "rows"]) -> _Model:
        """The same model on the vertices `rows` only, in that order (repeats allowed); its topology is
        None."""

    @abstractmethod
    def expression_weights(self, expression: Float[Tensor, "*b expressions"]) -> Float[Tensor, "*b names"]:
        """Non-negative weights of the named expressions, in the order of `expression_names`."""

    @abstractmethod
    def factors(self) -> dict[str, Tensor]:
        """The arrays that define the shapes, by name: what a file stores and the hash covers."""

    def fix_gauge(
        self, identity: Float[Tensor, "*#b identities"], expression: Float[Tensor, "*#b expressions"]
    ) -> tuple[Float[Tensor, "*#b identities"], Float[Tensor, "*#b expressions"]]:
        """Equivalent weights of the same shape in the model's gauge; here the weights themselves."""
        return identity, expression

    @property
    def sha256(self) -> str:
        """Hash of factors and topology (as little-endian float32 and int64), equal on every device and
        unchanged by a move to float64. Computed once."""
        if self._sha256 is None:
            self._sha256 = _hash_of(self)
        return self._sha256

    def _with_vertex_arrays(self: _Model, arrays: dict[str, Tensor]) -> _Model:
        """A model that shares every other array with this one but none of its containers, so that moving one
        of the two to another device leaves the other where it is."""
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
        arrays |= {f"topology.{name}": table for name, table in model.topology.tables().items()}
    for name, array in sorted(arrays.items()):
        canonical = array.detach().to("cpu", torch.float32 if array.is_floating_point() else torch.int64)
        digest.update(f"{name}{tuple(canonical.shape)}".encode())
        digest.update(_little_endian(canonical.contiguous().numpy()))
    return digest.hexdigest()


def _little_endian(array: Any) -> bytes:
    return bytes(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
