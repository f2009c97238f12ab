"""Fixtures every test shares: devices, dtypes, seeded generators and one tolerance table."""

import os

os.environ.setdefault("WARP_CACHE_PATH", os.path.expanduser("~/.cache/facerecon_torch/warp"))

import pytest
import torch

pytest_plugins = ["tests.tiny_fixtures"]

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(request.param)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def tolerance(dtype: torch.dtype) -> float:
    return TOLERANCE[dtype]
