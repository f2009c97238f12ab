"""A stage's regression: one penalty and a whole path of them, primal and dual, beside scikit-learn."""

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from facerecon_torch.regression import (
    DEFAULT_RELATIVE_PENALTIES,
    Ridge,
    RidgeSpec,
    StageFit,
    fit_ridge,
    fit_stage,
)

from ..case import Case, Context, Group
from .data import LowRank

TITLE = "ridge regression of 75 targets (Eq. 13); features of low rank; every penalty chosen on training people only"
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"n": [120], "d": [40, 200]},
    "quick": {"n": [600], "d": [300, 1200]},
    "small": {"n": [1200], "d": [600, 2400]},
    "full": {"n": [1260, 9000], "d": [2048, 8316]},
}
TARGETS, _RELATIVE_PENALTY, _HELD_OUT = 75, 1.0, 600
_FOLDS = 5
LD_COLUMNS = 132  # columns of the second feature block
_LONGEST_RIVAL_S = 60.0
FLOOR = "N D^2 (half of X'X) + 2 N D T (X'Y) + D^3 / 3 + 2 D^2 T (Cholesky, solve), D and N swapped where N < D"


def operations(n: int, d: int, targets: int = TARGETS) -> float:
    """The floor of one penalty by the smaller system."""
    many, few = max(n, d), min(n, d)
    return float(many * few**2 + 2 * n * d * targets + few**3 / 3 + 2 * few**2 * targets)


def groups(context: Context) -> Iterator[Group]:
    """In memory beside scikit-learn."""
    for n in context.list("n"):
        for d in context.list("d"):
            yield from _in_memory(context, n, d)


class _Problem:
    """Rows to train on and rows of other people to judge by, on the run's device."""

    def __init__(self, context: Context, n: int, d: int) -> None:
        source = LowRank(n + _HELD_OUT, d, TARGETS, dtype=context.dtype, device=context.device)
        x, y, people = source.matrix(), source.y, source.groups
        self.x, self.y, self.groups = x[:n], y[:n], people[:n]
        self.x_held, self.y_held = x[n:], y[n:]
        energy = float((self.x.double() - self.x.double().mean(0)).square().sum())
        self.penalty = _RELATIVE_PENALTY * energy / d
        self.penalties = [relative * energy / d for relative in DEFAULT_RELATIVE_PENALTIES]

    def unexplained(self, predictions: Tensor) -> float:
        """Share of the held-out people's variance that is left."""
        y = self.y_held.double()
        return float((predictions.to(y) - y).square().sum() / (y - y.mean(0)).square().sum())

    def stationarity(self, ridge: Ridge) -> float:
        """|X'(Y - XW - 1b') - lambda W| / |X'Y|, all centred, largest entries."""
        x, y, weight = self.x.double(), self.y.double(), ridge.weight.double()
        x, y = x - x.mean(0), y - y.mean(0)
        left = x.mT @ (y - x @ weight) - ridge.penalty * weight
        return float(left.abs().max() / (x.mT @ y).abs().max())


def _in_memory(context: Context, n: int, d: int) -> Iterator[Group]:
    problem = _Problem(context, n, d)
    known = {
        "items": 1,
        "unit": "fit",
        "operations": operations(n, d),
        "formula": FLOOR,
        "bytes": float((n * d + n * TARGETS + d * TARGETS) * problem.x.element_size()),
    }
    loose = 1e-9 if context.dtype == torch.float64 else 1e-4
    own = Case(
        name=f"one penalty, {'dual' if n < d else 'primal'}",
        run=lambda: fit_ridge(problem.x, problem.y, problem.penalty),
        error=lambda fit: {
            "off the normal equations": problem.stationarity(fit),
            "held-out variance left": problem.unexplained(fit(problem.x_held)),
        },
        limits={"off the normal equations": loose},
        **known,  # type: ignore[arg-type]
    )
    longest = {"expected_s": 10 * operations(n, d) / (1e9 * context.rate), "rounds": min(context.rounds, 5)}
    name = f"N = {n}, D = {d}, one penalty"
    yield Group(name=name, axis="D", x=d, cases=[own, *_one_penalty_rivals(context, problem, n, d)], **longest)  # type: ignore[arg-type]
    path = Case(
        name=f"{len(DEFAULT_RELATIVE_PENALTIES)} penalties, exact leave one person out",
        run=lambda: _fit_path(problem),
        error=lambda fit: {"held-out variance left": problem.unexplained(fit.stage(problem.x_held))},
        **known,  # type: ignore[arg-type]
    )
    name = f"N = {n}, D = {d}, penalty chosen among {len(DEFAULT_RELATIVE_PENALTIES)}"
    yield Group(name=name, axis="D", x=d, cases=[path, *_path_rivals(context, problem, n, d)], **longest)  # type: ignore[arg-type]


def _fit_path(problem: _Problem) -> StageFit:
    spec = RidgeSpec(scale_blocks=False)
    return fit_stage(problem.x, problem.y, problem.groups, partial(mean_square, target=problem.y), spec)


def mean_square(predictions: Tensor, *, target: Tensor) -> Tensor:
    return (predictions - target).square().mean()


def _sklearn_missing(context: Context, seconds: float) -> str | None:
    if importlib.util.find_spec("sklearn") is None:
        return "scikit-learn is not installed"
    return f"left out: about {seconds:.0f} s" if seconds > _LONGEST_RIVAL_S else None


def _one_penalty_rivals(context: Context, problem: _Problem, n: int, d: int) -> list[Case]:
    """Ridge(solver="cholesky"), which takes the dual form itself where that is smaller; the same penalty."""
    if not context.on_cpu:
        return []
    seconds = 4 * operations(n, d) / (1e9 * context.rate)

    def fit() -> Any:
        ridge = importlib.import_module("sklearn.linear_model").Ridge(problem.penalty, solver="cholesky")
        return ridge.fit(problem.x.numpy(), problem.y.numpy())

    return [
        _sklearn_case("scikit-learn Ridge, cholesky, same penalty", fit, problem, _sklearn_missing(context, seconds))
    ]


def _path_rivals(context: Context, problem: _Problem, n: int, d: int) -> list[Case]:
    """The same penalties, chosen on the same people: by grouped folds (5, where we leave out every person), and by
    RidgeCV, which leaves out single samples and so sees other pictures of the person it is asked about."""
    if not context.on_cpu:
        return []
    each = operations(n, d) / (1e9 * context.rate)

    def grid() -> Any:
        selection, linear = (importlib.import_module(f"sklearn.{m}") for m in ("model_selection", "linear_model"))
        search = selection.GridSearchCV(
            linear.Ridge(solver="cholesky"), {"alpha": problem.penalties}, cv=selection.GroupKFold(_FOLDS),
            scoring="neg_mean_squared_error",
        )  # fmt: skip
        return search.fit(problem.x.numpy(), problem.y.numpy(), groups=problem.groups.numpy())

    def leave_one_out() -> Any:
        ridge = importlib.import_module("sklearn.linear_model").RidgeCV(problem.penalties)
        return ridge.fit(problem.x.numpy(), problem.y.numpy())

    fits = _FOLDS * len(problem.penalties)
    return [
        _sklearn_case(f"scikit-learn GridSearchCV, GroupKFold({_FOLDS})", grid, problem,
                      _sklearn_missing(context, 2 * fits * each)),
        _sklearn_case("scikit-learn RidgeCV, leave one sample out", leave_one_out, problem,
                      _sklearn_missing(context, 40 * each)),
    ]  # fmt: skip


def _sklearn_case(name: str, run: Callable[[], Any], problem: _Problem, missing: str | None) -> Case:
    def errors(fit: Any) -> dict[str, float]:
        return {"held-out variance left": problem.unexplained(torch.from_numpy(fit.predict(problem.x_held.numpy())))}

    return Case(name=name, run=run, unit="fit", rival=True, error=errors, missing=missing)
