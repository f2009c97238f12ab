"""One tiny rendered set for all tests of this folder."""

from pathlib import Path

import pytest

from facerecon_torch.synthetic import SyntheticSet, SyntheticSpec, render_set

TINY = SyntheticSpec(subjects=2, images_per_subject=2, seed=3, size=144)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SyntheticSet]:
    folder = tmp_path_factory.mktemp("synthetic") / "tiny"
    return folder, render_set(TINY, folder, workers=1, progress=False)
