"""Vertices and landmarks of the face model (Eq. 2), beside the dense product that the equation asks for."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.bilinear import BilinearModel
from facerecon_torch.model.factored import factor_vertices
from facerecon_torch.structures import FaceParameters

from ..case import Case, Context, Group
from .data import default_model, draw_parameters

TITLE = "vertices of the default face (4,071 x 3 from 50 x 25 factors); errors are against float64"
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"batch": [2]},
    "quick": {"batch": [64]},
    "small": {"batch": [1, 64, 512]},
    "full": {"batch": [1, 16, 128, 1024, 4096]},
}
_CHECKED = 256  # faces whose error is taken
_LIMIT_MM = 0.02
_FEW = 8  # faces that the plain loop treats in a call


def groups(context: Context) -> Iterator[Group]:
    """One group per batch size."""
    model = default_model(context.device, context.dtype)
    exact = default_model(torch.device("cpu"), torch.float64)
    factored = factor_vertices(model, _LIMIT_MM) if isinstance(model, BilinearModel) else None
    core: Tensor = model.core  # type: ignore[assignment]
    table = core.flatten(2).flatten(0, 1).mT.contiguous()  # [I E, 3 V]
    marks = model.restrict(model.topology.landmark_vertices)  # type: ignore[union-attr]
    for batch in context.list("batch"):
        drawn = draw_parameters(model, batch)
        truth = exact.vertices(*_few(drawn, _CHECKED))
        yield Group(
            name=f"{batch} faces",
            cases=[
                *([] if factored is None else [_case("vertices, factored", factored, model, drawn, truth)]),
                _case("vertices", model.vertices, model, drawn, truth),
                Case(
                    name="dense product with all 1,250 alpha x beta",
                    run=lambda drawn=drawn: _dense(drawn, table),
                    items=batch,
                    unit="face",
                    rival=True,
                    bytes=_bytes(model, batch),
                    operations=2.0 * batch * table.numel(),
                    formula="2 B (3 V)(I E)",
                    error=lambda answer, truth=truth: _error(answer.unflatten(1, (-1, 3)), truth),
                    limits={"largest, mm": _LIMIT_MM},
                ),
                *([_numpy_rival(model, drawn, truth)] if context.on_cpu else []),
            ],
            axis="batch",
            x=batch,
        )
        truth = truth[:, exact.topology.landmark_vertices]  # type: ignore[union-attr]
        landmarks = _case("landmarks", marks.vertices, marks, drawn, truth)
        yield Group(name=f"66 landmarks of {batch} faces", cases=[landmarks], axis="batch", x=batch)


def _case(
    name: str, vertices: Callable[[Tensor, Tensor], Tensor], model: FaceModel, drawn: FaceParameters, truth: Tensor
) -> Case:
    return Case(
        name=name,
        run=lambda: vertices(drawn.identity, drawn.expression),
        items=len(drawn.identity),
        unit="face",
        bytes=_bytes(model, len(drawn.identity)),
        error=lambda answer: _error(answer, truth),
        limits={"largest, mm": _LIMIT_MM},
    )


def _few(drawn: FaceParameters, n: int) -> tuple[Tensor, Tensor]:
    return drawn.identity[:n].double().cpu(), drawn.expression[:n].double().cpu()


def _bytes(model: FaceModel, batch: int) -> float:
    """The model read once, weights read, vertices written."""
    numbers = 3 * model.n_vertices * model.n_identity * model.n_expression
    numbers += batch * (model.n_identity + model.n_expression + 3 * model.n_vertices)
    return float(numbers * model.identity_mean.element_size())


def _dense(drawn: FaceParameters, table: Tensor) -> Tensor:
    return (drawn.identity[:, :, None] * drawn.expression[:, None, :]).flatten(1) @ table


def _error(answer: Tensor, truth: Tensor) -> dict[str, float]:
    gap = torch.linalg.vector_norm(answer[: len(truth)].double().cpu() - truth, dim=-1)
    return {"largest, mm": float(gap.max())}


def _numpy_rival(model: FaceModel, drawn: FaceParameters, truth: Tensor) -> Case:
    """One face at a time: the identity, then the expression, as two products."""
    core = model.core.numpy()  # type: ignore[operator]
    first = core.transpose(0, 1, 3, 2).reshape(-1, core.shape[2]).copy()
    alphas, betas = drawn.identity.numpy(), drawn.expression.numpy()

    def one_by_one() -> Tensor:
        shapes = [((first @ a).reshape(-1, core.shape[3]) @ b).reshape(-1, 3)
                  for a, b in itertools.islice(zip(alphas, betas), _FEW)]  # fmt: skip
        return torch.stack([torch.from_numpy(shape) for shape in shapes])

    return Case(
        name="numpy, one face at a time",
        run=one_by_one,
        items=min(len(alphas), _FEW),
        unit="face",
        rival=True,
        error=lambda answer: _error(answer, truth[:_FEW]),
        limits={"largest, mm": _LIMIT_MM},
    )
