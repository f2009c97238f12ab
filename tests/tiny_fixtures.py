"""One small trained cascade on the tiny face, with pictures of noise: quick, and enough to test the plumbing."""

import pytest
import torch

from facerecon_torch.commands.train.methods import train_methods
from facerecon_torch.fitting.landmark_fit import LandmarkFitter
from facerecon_torch.geometry.projection import project
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.structures import Camera
from tests.tiny_world import SIZE, blobs, draw_faces, make_samples, make_setup


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


@pytest.fixture(scope="session")
def photographs(tiny_setup):
    """Pictures of the tiny world with their 66 landmarks."""
    generator = torch.Generator().manual_seed(9)
    n = 5
    faces = draw_faces(tiny_setup, n, 1, generator)
    yaw, pitch, roll = (torch.rand(3, n, generator=generator) - 0.5) * 0.6
    camera = Camera(
        rotation=euler_to_matrix(yaw, pitch, roll),
        scale=torch.full((n,), 0.7),
        translation=torch.full((n, 2), (SIZE - 1) / 2),
        degenerate=torch.zeros(n, dtype=torch.bool),
    )
    points, _ = LandmarkFitter(tiny_setup.model, tiny_setup.spec.fit).landmarks(faces, camera)
    landmarks = project(points, camera)
    return list(blobs(landmarks, faces.identity[:, 0], tiny_setup.model)), landmarks
