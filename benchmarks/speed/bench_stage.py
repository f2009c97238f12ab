"""A whole stage from row chunks: X'X, penalties by exact leave-one-person-out, fit, training predictions."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from facerecon_torch.regression import RidgeSpec, StageFit, fit_stage

from ..case import Alone, Case, Context, Group
from ..memory import process_peak_gb
from .bench_ridge import FLOOR, LD_COLUMNS, TARGETS, mean_square, operations
from .data import LowRank

TITLE = "a stage in the primal form, rows made chunk by chunk at every pass, so that X is never in memory"
# gb: what the whole process may take, 10^9 bytes; 0: any
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"n": [240], "d": [48], "rows_per_person": 12, "gb": 0.0, "x_in_memory": 0},
    "quick": {"n": [2000], "d": [500], "rows_per_person": 12, "gb": 0.0, "x_in_memory": 0},
    "small": {"n": [20_000], "d": [2000], "rows_per_person": 12, "gb": 2.0, "x_in_memory": 1},
    "full": {"n": [12_500, 25_000, 51_000, 100_000], "d": [8316], "rows_per_person": 12, "gb": 6.0, "x_in_memory": 0},
}
PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)  # the search begins in the middle: at least three are scored


def groups(context: Context) -> Iterator[Group]:
    """Each size in a fresh process, whose peak memory is its own."""
    for d in context.list("d"):
        for n in context.list("n"):
            yield _sizes(context, n, d)


def _sizes(context: Context, n: int, d: int) -> Group:
    known = {"n": n, "d": d, "rows_per_person": context.sizes["rows_per_person"], "gb": context.sizes["gb"]}
    cases = [
        Alone(name=f"X {kind}", build="bench_stage:stage_case", arguments={**known, "stream": stream})
        for kind, stream in (("in chunks", True), ("in memory", False))[: 1 + context.sizes["x_in_memory"]]
    ]
    seconds = (1 + len(PENALTIES)) * operations(n, d) / (1e9 * context.rate)
    return Group(name=f"stage of N = {n}, D = {d}", axis="N", x=n, cases=cases, expected_s=seconds, rounds=1)


def stage_case(context: Context, n: int, d: int, rows_per_person: int, gb: float, stream: bool) -> Case:
    """Built in the fresh process: there a source of chunks holds nothing."""
    source = LowRank(n, d, TARGETS, dtype=context.dtype, device=context.device)
    y, people = source.y, torch.arange(n, device=context.device) // rows_per_person
    x = source if stream else source.matrix()
    blocks = (d - LD_COLUMNS, LD_COLUMNS) if d > 2 * LD_COLUMNS else (d,)
    spec = RidgeSpec(relative_penalties=PENALTIES, block_sizes=blocks, form="primal")
    size = torch.finfo(context.dtype).bits // 8
    return Case(
        name="stage",
        run=lambda: fit_stage(x, y, people, partial(mean_square, target=y), spec),
        items=n,
        unit="sample",
        operations=operations(n, d),
        formula=FLOOR,
        bytes=float((n * d + 2 * n * TARGETS + d * TARGETS) * size),
        error=lambda fit: _errors(fit, y),
        limits={"training variance left": 0.9} | ({"whole process, GB": gb} if gb and context.on_cpu else {}),
    )


def _errors(fit: StageFit, y: Tensor) -> dict[str, float]:
    truth = y.double()
    spread = (truth - truth.mean(0)).square().sum()
    left = {"training": fit.in_sample, "out-of-person": fit.out_of_group}
    shares = {
        f"{name} variance left": float((predictions.double() - truth).square().sum() / spread)
        for name, predictions in left.items()
        if predictions is not None
    }
    return shares | {
        "relative penalty": fit.relative_penalty or float("inf"),
        "penalties scored": float(len(fit.path)),
        "whole process, GB": process_peak_gb(),
    }
