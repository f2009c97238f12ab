"""A stage's regression: one penalty and a whole path of them, primal, dual and streamed, beside scikit-learn."""

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from facerecon_torch.regression import DEFAULT_RHOS, Ridge, StageFit, StageSpec, fit_ridge, fit_stage

from .case import Alone, Case, Context, Group
from .data import LowRank

TITLE = "ridge regression of 75 targets (Eq. 13); features of low rank; every penalty chosen on training people only"
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"n": [120], "d": [40, 200], "stream_n": [240], "stream_d": [48], "wide": 0},
    "quick": {"n": [600], "d": [300, 1200], "stream_n": [], "stream_d": [], "wide": 0},
    "small": {"n": [1200], "d": [600, 2400], "stream_n": [4000, 16000], "stream_d": [1024], "wide": 0},
    "full": {
        "n": [1260, 9000], "d": [2048, 8316], "stream_n": [12500, 25000, 51000, 100000], "stream_d": [8316], "wide": 1,
    },
}  # fmt: skip
_TARGETS, _RHO, _HELD_OUT = 75, 1.0, 600
_FOLDS = 5
_LD = 132  # columns of the second feature block
_LONGEST_RIVAL_S = 60.0
_FLOOR = "N D^2 (half of X'X) + 2 N D T (X'Y) + D^3 / 3 + 2 D^2 T (Cholesky, solve), D and N swapped where N < D"


def operations(n: int, d: int, targets: int = _TARGETS) -> float:
    """The floor of one penalty by the smaller system."""
    many, few = max(n, d), min(n, d)
    return float(many * few**2 + 2 * n * d * targets + few**3 / 3 + 2 * few**2 * targets)


def groups(context: Context) -> Iterator[Group]:
    """In memory beside scikit-learn, then streamed, each size in a fresh process."""
    for n in context.list("n"):
        for d in context.list("d"):
            yield from _in_memory(context, n, d)
    for d in context.list("stream_d"):
        for n in context.list("stream_n"):
            yield _streamed(context, n, d)
    if context.sizes["wide"]:
        yield _streamed(context, 51000, 32868, in_memory=False)


class _Problem:
    """Rows to train on and rows of other people to judge by, on the run's device."""

    def __init__(self, context: Context, n: int, d: int) -> None:
        source = LowRank(n + _HELD_OUT, d, _TARGETS, dtype=context.dtype, device=context.device)
        x, y, people = source.matrix(), source.y, source.groups
        self.x, self.y, self.groups = x[:n], y[:n], people[:n]
        self.x_held, self.y_held = x[n:], y[n:]
        energy = float((self.x.double() - self.x.double().mean(0)).square().sum())
        self.penalty = _RHO * energy / d
        self.penalties = [rho * energy / d for rho in DEFAULT_RHOS]

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
        "formula": _FLOOR,
        "bytes": float((n * d + n * _TARGETS + d * _TARGETS) * problem.x.element_size()),
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
        name=f"{len(DEFAULT_RHOS)} penalties, exact leave one person out",
        run=lambda: _fit_path(problem),
        error=lambda fit: {"held-out variance left": problem.unexplained(fit.stage(problem.x_held))},
        **known,  # type: ignore[arg-type]
    )
    name = f"N = {n}, D = {d}, penalty chosen among {len(DEFAULT_RHOS)}"
    yield Group(name=name, axis="D", x=d, cases=[path, *_path_rivals(context, problem, n, d)], **longest)  # type: ignore[arg-type]


def _fit_path(problem: _Problem) -> StageFit:
    spec = StageSpec(scale_blocks=False)
    return fit_stage(problem.x, problem.y, problem.groups, partial(_squared, target=problem.y), spec)


def _squared(predictions: Tensor, *, target: Tensor) -> Tensor:
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


def _streamed(context: Context, n: int, d: int, *, in_memory: bool = True) -> Group:
    """A whole stage (path, choice, fit, training predictions) and one penalty, from chunks; and X in memory where it
    takes less than 8 GB."""
    cases = [
        Alone(name=f"stage, {kind}", build="bench_ridge:stage_case",
              arguments={"n": n, "d": d, "path": path, "stream": stream})
        for kind, path, stream in (
            ("streamed, one penalty", False, True),
            (f"streamed, {len(DEFAULT_RHOS)} penalties", True, True),
            (f"X in memory, {len(DEFAULT_RHOS)} penalties", True, False),
        )
        if stream or (in_memory and 4 * n * d < 8e9)
    ]  # fmt: skip
    few = min(n, d)
    seconds = (3 * operations(n, d) + 60 * few**3) / (1e9 * context.rate)
    return Group(name=f"stage of N = {n}, D = {d}", axis="N", x=n, cases=cases, expected_s=seconds)


def stage_case(context: Context, n: int, d: int, path: bool, stream: bool) -> Case:
    """Built in the fresh process: there a source of chunks holds nothing."""
    source = LowRank(n, d, _TARGETS, dtype=context.dtype, device=context.device)
    y, people = source.y, source.groups
    x = source if stream else source.matrix()
    blocks = (d - _LD, _LD) if d > 2 * _LD else (d,)
    spec = StageSpec(block_sizes=blocks) if path else StageSpec(block_sizes=blocks, rhos=_RHO)
    error = partial(_squared, target=y)
    size = torch.finfo(context.dtype).bits // 8
    return Case(
        name="stage",
        run=lambda: fit_stage(x, y, people if path else None, error, spec),
        items=n,
        unit="sample",
        operations=operations(n, d),
        formula=_FLOOR,
        bytes=float((n * d + 2 * n * _TARGETS + d * _TARGETS) * size),
        error=lambda fit: _stage_errors(fit, y),
        limits={"training variance left": 0.9},
    )


def _stage_errors(fit: StageFit, y: Tensor) -> dict[str, float]:
    truth = y.double()
    spread = (truth - truth.mean(0)).square().sum()
    found = {"training variance left": float((fit.in_sample.double() - truth).square().sum() / spread)}
    if fit.out_of_group is not None:
        left = float((fit.out_of_group.double() - truth).square().sum() / spread)
        found |= {"out-of-person variance left": left, "rho": fit.rho or float("inf")}
    return found
