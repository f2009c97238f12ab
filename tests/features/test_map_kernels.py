"""The kernels that make dense maps, against the eager reference: Triton, torch.compile, and what happens without."""

import itertools
import logging
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.features.hog import HogSpec, gather_hog, hog_maps, use_kernel
from facerecon_torch.features.hog import dense as map_kernels
from tests.features.test_patch_hog import SPECS, smooth_images, spec_id

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _automatic_afterwards():
    yield
    use_kernel("auto")
    map_kernels._compiled.cache_clear()


def run_python(*arguments, **environment):
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run([sys.executable, *arguments], env=variables, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_triton_in_its_interpreter_makes_the_maps_of_the_differentiable_path():
    """In a process of its own: triton reads TRITON_INTERPRET when it is imported."""
    pytest.importorskip("triton")
    found = run_python("tests/features/triton_in_interpreter.py", TRITON_INTERPRET="1").split("\n")[:-1]
    assert len(found) == 12
    for line in found:
        name, values, slopes = line.split()
        assert float(values) <= (1e-3 if name == "half" else 1e-6), line
        assert float(slopes) <= (1e-2 if name == "half" else 1e-5), line


@pytest.mark.parametrize(
    ("which", "least"),
    [("shipped", {"_vote": 2, "_sum_neighbours": 6}), pytest.param("all", {"_vote": 48, "_sum_neighbours": 26},
                                                                   marks=pytest.mark.slow)],
    ids=["shipped", "all"],
)  # fmt: skip
def test_triton_kernels_compile_for_gpus_that_are_not_there(which, least):
    """Every launch of the configurations in configs/, and of every kind of HogSpec, for three generations of GPUs."""
    pytest.importorskip("triton")
    built = [line.split() for line in run_python("tests/features/triton_ahead_of_time.py", which).splitlines()]
    counts = Counter((architecture, kernel) for architecture, kernel, *_ in built)
    for architecture, (kernel, count) in itertools.product(("sm_80", "sm_90", "sm_100"), least.items()):
        assert counts[architecture, kernel] >= count
    assert min(int(line[-1]) for line in built) > 1000  # bytes of machine code


@pytest.mark.slow
def test_compiled_maps_are_those_of_the_differentiable_path():
    """In a process of its own, where no type checker wraps what is compiled, on several sizes and batches."""
    script = """
import logging, torch
from facerecon_torch.features.hog import HogSpec, gather_hog, hog_maps, use_kernel
from facerecon_torch.features.hog import dense as map_kernels
logging.basicConfig(level="ERROR")
for vote in ("linear", "hard"):
    for shape in ((2, 3, 40, 36), (1, 3, 40, 36), (1, 3, 37, 50)):
        crops, spec = torch.rand(shape), HogSpec(vote=vote, patch_px=16, cell_px=8)
        use_kernel("compiled")
        expected = hog_maps(crops.clone().requires_grad_(), spec)
        got = hog_maps(crops, spec)
        torch.testing.assert_close(got.histograms, expected.histograms, rtol=0, atol=1e-5)
        slopes = []
        for maps in (got, expected):
            points = torch.full((len(crops), 1, 2), 17.3, requires_grad=True)
            slopes += torch.autograd.grad(gather_hog(maps, points, spec).square().sum(), points)
        torch.testing.assert_close(*slopes, rtol=0, atol=1e-4)
        assert map_kernels._chosen == ["compiled"]  # it did not fall back
"""
    run_python("-c", script)


def test_without_a_compiler_maps_are_eager_and_the_log_says_so_once(monkeypatch, caplog, rng):
    def broken(function):
        def call(*_):
            raise RuntimeError("no C++ compiler\nand a long story")

        return call

    crops = smooth_images(2, 3, 64, rng, torch.float32)
    expected = hog_maps(crops, HogSpec()).histograms
    monkeypatch.setattr(torch, "compile", broken)
    use_kernel("compiled")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert_close(hog_maps(crops, HogSpec()).histograms, expected, rtol=0, atol=0)
    assert [record.getMessage() for record in caplog.records] == [
        "dense maps are made without torch.compile, which failed: no C++ compiler"
    ]


def test_a_wrong_crop_is_no_fault_of_the_compiler(monkeypatch, caplog):
    use_kernel("compiled")
    with pytest.raises(ValueError, match="1 or 3 channels"):
        hog_maps(torch.rand(1, 2, 64, 64), HogSpec())
    assert not caplog.records


def test_crops_that_need_a_gradient_are_never_compiled(monkeypatch, rng):
    monkeypatch.setattr(torch, "compile", lambda function: pytest.fail("compiled"))
    use_kernel("compiled")
    crops = smooth_images(1, 3, 64, rng).requires_grad_()
    hog_maps(crops, HogSpec()).histograms.sum().backward()
    assert crops.grad.abs().max() > 0


def test_other_kernels_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="auto, eager, compiled, triton; got 'fast'"):
        use_kernel("fast")
    monkeypatch.setattr(map_kernels, "_has_triton", lambda: False)
    with pytest.raises(ValueError, match="needs the package triton"):
        use_kernel("triton")


@pytest.mark.parametrize("kernel", ["auto", "triton"])
def test_crops_on_the_cpu_are_eager_wherever_triton_is(kernel, rng):
    crops = smooth_images(1, 3, 64, rng, torch.float32)
    use_kernel("eager")
    expected = hog_maps(crops, HogSpec()).histograms
    if kernel == "triton":
        pytest.importorskip("triton")
    use_kernel(kernel)
    assert_close(hog_maps(crops, HogSpec()).histograms, expected, rtol=0, atol=0)


@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
@pytest.mark.parametrize("kept", [torch.float32, torch.float16])
def test_triton_on_cuda_makes_the_maps_of_the_differentiable_path(spec, kept, rng):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    pytest.importorskip("triton")
    crops = smooth_images(3, 3, 96, rng, torch.float32)
    expected = hog_maps(crops.clone().requires_grad_(), spec).histograms.detach()
    use_kernel("triton")
    got = hog_maps(crops.cuda(), spec, dtype=kept).histograms
    assert got.dtype == kept
    assert torch.equal(got, hog_maps(crops.cuda(), spec, dtype=kept).histograms)
    scale = float(expected.max())
    assert_close(got.cpu().float(), expected, rtol=0, atol=(1e-3 if kept == torch.float16 else 1e-5) * scale)


@pytest.mark.parametrize("variant", ["uoctti", "dalal"])
def test_half_precision_maps_are_the_maps_rounded(variant, rng):
    spec = HogSpec(variant=variant)
    crops = smooth_images(6, 3, 96, rng, torch.float32).reshape(2, 3, 3, 96, 96)
    points = 20 + 60 * torch.rand(2, 3, 5, 2, generator=rng)
    full, half = hog_maps(crops, spec), hog_maps(crops, spec, dtype=torch.float16)
    assert half.histograms.dtype == torch.float16
    assert_close(half.histograms, full.histograms.half(), rtol=0, atol=0)
    described = gather_hog(half, points, spec)
    assert described.dtype == torch.float32
    assert_close(described, gather_hog(full, points, spec), rtol=0, atol=5e-4)
    assert not torch.equal(described, gather_hog(full, points, spec))


def test_maps_kept_in_another_precision_have_the_gradient(rng):
    crops = smooth_images(1, 3, 64, rng, torch.float32).requires_grad_()
    points = torch.tensor([[[30.0, 31.5]]])
    gradients = []
    for kept in (None, torch.float64):
        described = gather_hog(hog_maps(crops, HogSpec(), dtype=kept), points, HogSpec())
        gradients += torch.autograd.grad(described.square().sum(), crops)
    assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)
    assert gradients[0].abs().max() > 0
