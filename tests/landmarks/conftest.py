"""Real photographs for the detectors."""

import os
from pathlib import Path

import pytest
import torch

from facerecon_torch.images import read_image


@pytest.fixture(scope="session")
def astronaut() -> torch.Tensor:
    """NASA portrait, 512 x 512, from the scikit-image wheel."""
    data = pytest.importorskip("skimage.data")
    return torch.from_numpy(data.astronaut()).permute(2, 0, 1).float() / 255


@pytest.fixture(params=["obama.jpg", "biden.jpg"])
def portrait(request: pytest.FixtureRequest) -> torch.Tensor:
    """Official portraits of the development data."""
    root = os.environ.get("FACERECON_DATA")
    folder = Path(root) if root else Path(__file__).parents[3] / "shared" / "data"
    file = folder / "real" / "photos" / request.param
    if not file.is_file():
        pytest.skip(f"{file} is not here")
    return read_image(file)
