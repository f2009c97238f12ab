"""HOSVD of a tensor that lies in a file: the same answer, its own error, and little memory for a gigabyte."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.model.hosvd import hosvd
from facerecon_torch.model.importers.building import scratch_array

_SHAPE = (150, 47, 34530)  # people, expressions, 3 V of FaceWarehouse: 0.97 GB of float32


@pytest.fixture
def tensor(rng):
    """30 points of 12 people x 7 expressions, with a mean face and factors that decay."""
    decay = torch.linspace(0, -3, 12)[:, None].exp() * torch.linspace(0, -2, 7).exp()
    mean = 40 * torch.randn(90, 1, 1, generator=rng, dtype=torch.float64)
    return mean + 5 * decay * torch.randn(90, 12, 7, generator=rng, dtype=torch.float64)


def test_tensor_in_a_file_gives_the_same_answer(tensor, tmp_path):
    with scratch_array((12, 7, 90), tmp_path) as array:
        array[:] = tensor.permute(1, 2, 0).numpy()
        answer = hosvd(torch.from_numpy(array).permute(2, 0, 1), 5, 3)
    assert not list(tmp_path.iterdir())
    expected = hosvd(tensor.float(), 5, 3)
    for name in ("core", "identity_rows", "expression_rows", "identity_singular_values"):
        assert_close(getattr(answer, name), getattr(expected, name), rtol=1e-4, atol=1e-4)


def test_chunks_worked_on_elsewhere_give_the_same_answer(tensor, device):
    answer, expected = hosvd(tensor, 5, 3, device=device), hosvd(tensor, 5, 3)
    assert answer.core.device == answer.identity_rows.device == tensor.device
    assert_close(answer.core, expected.core, rtol=0, atol=1e-9)
    assert answer.residual_rms == pytest.approx(expected.residual_rms)


@pytest.mark.parametrize("ranks", [(12, 7), (5, 3), (1, 1)])
def test_error_and_variance_kept_are_those_of_the_rebuilt_tensor(tensor, ranks):
    answer = hosvd(tensor, *ranks)
    rebuilt = torch.einsum("rie,ni,ke->rnk", answer.core, answer.identity_rows, answer.expression_rows)
    residual = float((rebuilt - tensor).square().mean().sqrt())
    spread = float((tensor - tensor.mean(dim=(1, 2), keepdim=True)).square().mean().sqrt())
    assert answer.residual_rms == pytest.approx(residual, abs=1e-5)
    assert answer.spread_rms == pytest.approx(spread)
    assert answer.variance_kept == pytest.approx(1 - (residual / spread) ** 2)


def test_a_tensor_without_spread_is_kept_whole():
    answer = hosvd(torch.ones(6, 4, 3, dtype=torch.float64), 1, 1)
    assert answer.variance_kept == 1.0 or answer.residual_rms < 1e-7


def test_a_full_disk_is_told_before_anything_is_written(tmp_path):
    beyond_any_disk = (2**30, 2**20)
    with pytest.raises(OSError, match=r"large|space"), scratch_array(beyond_any_disk, tmp_path):
        pass


_REDUCE = """
import json, resource, sys, time
import numpy as np, torch
from facerecon_torch.model.importers.building import BuildSpec, People, build_bilinear
people, expressions, rows = json.loads(sys.argv[1])
draw = torch.Generator().manual_seed(0)
decay = torch.linspace(0, -4, 50).exp()[:, None, None] * torch.linspace(0, -3, 25).exp()[:, None]
core = torch.randn(50, 25, rows, generator=draw) * decay
core[0, 0] *= 60
identity = torch.randn(people, 50, generator=draw)
expression = torch.randn(expressions, 25, generator=draw)
identity[:, 0], expression[:, 0] = 1, 1
def read(k):
    return (expression @ (identity[k] @ core.flatten(1)).reshape(25, rows)).reshape(expressions, -1, 3)
source = People(n_people=people, n_expressions=expressions, n_vertices=rows // 3, read=read,
                read_neutral=lambda k: read(k)[0])
start = time.perf_counter()
built = build_bilinear(source, BuildSpec())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"seconds": time.perf_counter() - start, "peak_gib": peak, **built.summary}))
"""


@pytest.mark.slow
def test_a_gigabyte_of_faces_is_reduced_within_6_gib():
    done = subprocess.run(
        [sys.executable, "-c", _REDUCE, json.dumps(_SHAPE)], capture_output=True, text=True, check=True
    )
    figures = json.loads(done.stdout)
    assert figures["peak_gib"] < 6
    assert (figures["identity_rank"], figures["expression_rank"]) == (50, 25)
    assert figures["vertices"] == np.prod(_SHAPE[2:]) // 3
    assert figures["variance_kept"] > 0.99
