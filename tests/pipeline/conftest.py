"""One small trained cascade on the tiny face, with pictures of noise: quick, and enough to test the plumbing."""

import pytest
import torch

from facerecon_torch.pipeline.train import train_methods
from tests.pipeline.tiny_world import make_samples, make_setup


@pytest.fixture(scope="session")
def tiny_setup():
    return make_setup()


@pytest.fixture(scope="session")
def tiny_outcome(tiny_setup):
    train = make_samples(tiny_setup, people=12, images=4, seed=1)
    test = make_samples(tiny_setup, people=6, images=3, seed=2, first_subject=100)
    return train_methods(tiny_setup, train, {"test": test})


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(5)
