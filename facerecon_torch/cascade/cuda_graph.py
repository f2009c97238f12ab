"""Small batches with the least delay: a fixed batch, recorded once as a CUDA graph and replayed.

A small batch is thousands of tiny kernels, and launching them takes longer than running them; a CUDA graph launches all
of them at once.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from facerecon_torch.cascade.reconstruction import KnownSize, Reconstruction
from facerecon_torch.cascade.reconstructor import FaceReconstructor, reconstruct_images
from facerecon_torch.runtime.timer import untimed
from facerecon_torch.structures import TensorRecord

__all__ = ["LatencySession", "Replayed"]

_log = logging.getLogger(__name__)
_WARM_UP = 3  # runs before a recording, so that every library has allocated what it needs
_Result = TypeVar("_Result", bound="Tensor | TensorRecord | tuple[Tensor | TensorRecord, ...]")
_Values: TypeAlias = "Tensor | TensorRecord | tuple[Tensor | TensorRecord, ...]"


def _change(values: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Tensors, records and tuples of them with every tensor changed."""
    if isinstance(values, tuple):
        return tuple(_change(value, change) for value in values)
    return values._map(change) if isinstance(values, TensorRecord) else change(values)


def _tensors(values: _Values) -> list[Tensor]:
    """Every tensor of `values`, in a fixed order."""
    listed: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        listed.append(tensor)
        return tensor

    _change(values, note)
    return listed


class Replayed(Generic[_Result]):
    """A function of CUDA tensors or records of fixed shapes, recorded at the first call as a CUDA graph and replayed.

    On the CPU, and where recording fails (logged once), it is the function itself. The function must do without the
    host: no branch on values, no tensor made from numbers. Not for several threads at once.
    """

    def __init__(self, name: str, function: Callable[..., _Result]) -> None:
        self._name = name
        self._function = function
        self._inputs: tuple[Any, ...] = ()
        self._outputs: _Result | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._eager = False

    @property
    def is_recorded(self) -> bool:
        """Whether calls replay a graph."""
        return self._graph is not None

    def __call__(self, *inputs: Tensor | TensorRecord) -> _Result:
        """Raises ValueError where the shapes or dtypes are not those of the recording."""
        if self._eager or _tensors(inputs)[0].device.type != "cuda":
            return self._function(*inputs)
        if self._graph is None and not self._record(inputs):
            return self._function(*inputs)
        for held, given in zip(_tensors(self._inputs), _tensors(inputs), strict=True):
            if held.shape != given.shape or held.dtype != given.dtype:
                raise ValueError(
                    f"{self._name} was recorded for {held.dtype} {tuple(held.shape)}; got {given.dtype} "
                    f"{tuple(given.shape)}"
                )
            held.copy_(given)
        if self._graph is not None:
            self._graph.replay()
        result: _Result = _change(self._outputs, Tensor.clone)  # the next replay writes over its own
        return result

    def _record(self, inputs: tuple[Any, ...]) -> bool:
        device = _tensors(inputs)[0].device
        stream = torch.cuda.current_stream(device)
        held = _change(inputs, Tensor.clone)
        try:
            with untimed(), torch.cuda.device(device):
                side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    for _ in range(_WARM_UP):
                        self._function(*held)
                torch.cuda.current_stream().wait_stream(side)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    outputs = self._function(*held)
        except RuntimeError as error:
            with torch.cuda.device(device):
                torch.cuda.set_stream(stream)  # a recording that fails leaves its own as the current one
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            _log.warning("%s cannot be recorded as a CUDA graph and runs step by step: %s", self._name, reason)
            self._eager = True
            return False
        self._inputs, self._outputs, self._graph = held, outputs, graph
        return True


class LatencySession:
    """`FaceReconstructor.reconstruct` for batches of exactly `batch` faces: a CUDA graph of `forward`.

    The landmark fit and `forward` are two recordings (`Replayed`); between them the host reads where the crops lie. The
    first call takes as long as several. Not for several threads at once.

    Args:
        model: on its device; it must not be moved afterwards.
        batch: faces of every call.
        size: size of the faces, where it is known.

    Raises:
        ValueError: batch is below 1.

    Example:
        >>> session = LatencySession(FaceReconstructor.from_pretrained().to("cuda"))
        >>> face = session([image], landmarks[None])
    """

    def __init__(self, model: FaceReconstructor, *, batch: int = 1, size: KnownSize | None = None) -> None:
        if batch < 1:
            raise ValueError(f"batch must be at least 1; got {batch}")
        self._model, self._batch, self._size = model, batch, size or KnownSize()
        self._locate = Replayed("the landmark fit", model.locate)
        self._solve_crops = Replayed("the cascade", model.solve_crops)

    @property
    def is_recorded(self) -> bool:
        """Whether calls replay both graphs."""
        return self._locate.is_recorded and self._solve_crops.is_recorded

    def __call__(
        self, images: Sequence[Shaped[Tensor, "3 height width"]], landmarks: Float[Tensor, "n 66 2"]
    ) -> Reconstruction:
        """As `FaceReconstructor.reconstruct`. Raises ValueError for another number of faces than `batch`."""
        if not len(images) == len(landmarks) == self._batch:
            raise ValueError(
                f"this session is for {self._batch} faces at once; got {len(images)} images and {len(landmarks)} rows "
                "of landmarks"
            )
        return reconstruct_images(self._model, images, landmarks, self._size, self._locate, self._solve_crops)
