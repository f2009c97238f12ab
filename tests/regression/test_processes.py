"""Processes with samples of their own end with the cascade of one process that has them all."""

import os
import socket

import pytest
import torch
import torch.multiprocessing as mp
from torch.testing import assert_close

from facerecon_torch.regression import (
    CascadeSpec,
    RidgeSpec,
    compute_moments,
    compute_sample_gram,
    fit_stage,
    train_cascade,
)
from facerecon_torch.runtime.ranks import SINGLE, joined_ranks

GROUPS = torch.tensor([7, 7, 7, 30, 30, 2, 2, 2, 2, 11, 5, 5, 5, 9, 9, 9, 40, 40, 3, 3, 3, 3, 21, 21])
# Which groups each process holds; the first of three has none.
SHARES = {2: ((30, 2, 5, 40, 21, 7), (11, 9, 3)), 3: ((), (3, 21, 9, 7, 2), (30, 11, 5, 40))}
CASES = {"dual": 40, "primal": 6}


def samples(d):
    rng = torch.Generator().manual_seed(3)
    truth = torch.randn(len(GROUPS), 3, generator=rng, dtype=torch.float64)
    clutter = torch.randn(len(GROUPS), d, generator=rng, dtype=torch.float64) + 100.0
    return truth, clutter, torch.randn(3, d, generator=rng, dtype=torch.float64)


def train(own, form, ranks):
    """Reports and weights of every stage, and the first stage again from moments or a Gram matrix."""
    d = CASES[form]
    truth, clutter, mix = (part[own] if len(part) == len(GROUPS) else part for part in samples(d))
    x0 = torch.zeros_like(truth)

    def observe(x, k):
        return lambda: iter((((truth - x).sin() @ mix) + clutter).split(4))

    def error(x):
        total, count = ranks.add_(torch.stack([(x - truth).norm(dim=1).sum(), torch.tensor(float(len(x))).double()]))
        return total / count

    blocks = {"block_sizes": (d // 3, d - d // 3), "block_weights_grid": ((1.0, 1.0), (1.0, 0.3))}
    ridge = RidgeSpec(relative_penalties=(0.1, 1.0, 10.0), form=form, **blocks)
    spec = CascadeSpec(stages=2, ridge=ridge)
    cascade, reports = train_cascade(observe, x0, truth, GROUPS[own], error, spec, ranks=ranks)
    first = (
        compute_sample_gram(observe(x0, 0), len(x0), block_sizes=blocks["block_sizes"], ranks=ranks)
        if form == "dual"
        else compute_moments(observe(x0, 0), truth - x0, ranks=ranks)
    )
    again = fit_stage(
        observe(x0, 0), truth - x0, GROUPS[own], lambda y: error(x0 + y),
        RidgeSpec(relative_penalties=(0.1, 1.0), **blocks), shared=first, ranks=ranks,
    )  # fmt: skip
    return {
        "reports": [
            (r.relative_penalty, r.block_weights, r.kept, r.cross_fitted_error, r.in_sample_error) for r in reports
        ],
        "weights": [stage.ridge.weight for stage in cascade.stages],
        "bias": [stage.ridge.bias for stage in cascade.stages],
        "again": (again.relative_penalty, again.stage.ridge.weight, again.out_of_group, again.in_sample, own),
    }


def _work(rank, world, port, folder):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(world)}
    torch.set_num_threads(1)
    with joined_ranks(torch.device("cpu")) as ranks:
        own = [k for group in SHARES[world][rank] for k in range(len(GROUPS)) if GROUPS[k] == group]
        own = torch.tensor(own, dtype=torch.int64)
        torch.save({case: train(own, case, ranks) for case in CASES}, f"{folder}/{rank}.pt")
        split = torch.arange(2) + rank  # group 1 is on two processes
        try:
            compute = fit_stage(torch.randn(2, 1), torch.randn(2, 1), split, lambda y: y.mean(),
                                RidgeSpec(relative_penalties=(1.0, 2.0), form="primal"), ranks=ranks)  # fmt: skip
        except ValueError as refused:
            compute = str(refused)
        torch.save(compute, f"{folder}/split{rank}.pt")


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("world", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_several_processes_train_what_one_does(world, tmp_path):
    mp.start_processes(_work, (world, _free_port(), str(tmp_path)), nprocs=world, start_method="spawn")
    everyone = torch.arange(len(GROUPS))
    for case in CASES:
        alone = train(everyone, case, SINGLE)
        assert len(alone["reports"]) > 1
        for rank in range(world):
            shared = torch.load(tmp_path / f"{rank}.pt", weights_only=False)[case]
            for ours, theirs in zip(shared["reports"], alone["reports"], strict=True):
                assert ours[:3] == theirs[:3]
                assert ours[3:] == pytest.approx(theirs[3:], rel=1e-9)
            assert_close(shared["weights"], alone["weights"], rtol=1e-9, atol=1e-9)
            assert_close(shared["bias"], alone["bias"], rtol=1e-9, atol=1e-9)
            penalty, weight, out_of_group, in_sample, own = shared["again"]
            assert penalty == alone["again"][0]
            assert_close(weight, alone["again"][1], rtol=1e-9, atol=1e-9)
            assert_close(out_of_group, alone["again"][2][own], rtol=1e-9, atol=1e-9)
            assert_close(in_sample, alone["again"][3][own], rtol=1e-9, atol=1e-9)
    for rank in range(world):
        said = torch.load(tmp_path / f"split{rank}.pt", weights_only=False)
        assert "every group must be on one process" in said
