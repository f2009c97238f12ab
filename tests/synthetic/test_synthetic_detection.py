"""A real detector takes the renders for people, and puts its points where theirs are."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("dlib")

from facerecon_torch.commands.build_assets.landmark_noise import detect_set, detection_rates
from facerecon_torch.synthetic import SyntheticSpec
from facerecon_torch.synthetic.dataset import SyntheticSet, render_set
from facerecon_torch.synthetic.render import subject as render_subject


@pytest.mark.slow
def test_dlib_finds_nine_in_ten_near_frontal_renders(tmp_path: Path) -> None:
    """The rates on 720 other pictures are in assets/synthetic/landmark_noise_ibug.json."""
    rendered = render_set(SyntheticSpec(subjects=30, images_per_subject=4, seed=99), tmp_path, progress=False)
    measured = detect_set("dlib", rendered, workers=2, progress=False)
    assert detection_rates(rendered, measured.detected)["0-20"]["rate"] >= 0.9
    assert float(measured.errors[:, :49].norm(dim=2).median()) < 4.0


@pytest.fixture(scope="module")
def frontal(tmp_path_factory: pytest.TempPathFactory) -> SyntheticSet:
    angles = iter(torch.tensor([[0.0, 0.0, 0.0], [12.0, 5.0, -6.0]]) * (math.pi / 180))
    spec = SyntheticSpec(subjects=2, images_per_subject=1, seed=11, size=320)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(render_subject, "draw_pose", lambda _: next(angles))
        return render_set(spec, tmp_path_factory.mktemp("frontal"), workers=1, progress=False)


@pytest.mark.parametrize("detector", ["dlib", "mediapipe"])
def test_frontal_renders_are_found(detector: str, frontal: SyntheticSet) -> None:
    measured = detect_set(detector, frontal, progress=False)
    assert measured.detected.tolist() == [True] * 2
    assert float(measured.errors[:, :49].norm(dim=2).median()) < 4.0
    swapped = replace(frontal, landmarks=frontal.landmarks.flip(0) + 300.0)  # truth elsewhere: nothing is found
    assert not bool(detect_set(detector, swapped, progress=False).detected.any())
