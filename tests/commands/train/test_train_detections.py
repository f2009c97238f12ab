"""Landmarks that training finds on rendered photographs: those of the detector, kept beside the set."""

import logging
from dataclasses import replace

import pytest
import torch

from facerecon_torch.commands.train import detections
from facerecon_torch.commands.train.detections import detect_rendered, detect_set
from facerecon_torch.config.runtime import RuntimeSpec
from facerecon_torch.images.read import read_pixels
from facerecon_torch.landmarks.registry import build_detector
from facerecon_torch.landmarks.scheme import to_paper66
from facerecon_torch.landmarks.source import LandmarkSourceSpec
from facerecon_torch.runtime.ranks import SINGLE
from facerecon_torch.synthetic.dataset import render_set
from facerecon_torch.synthetic.spec import SyntheticSpec
from tests.thread_ranks import together

OWN = LandmarkSourceSpec(source="mediapipe")
RUNTIME = RuntimeSpec(device="cpu", workers=1, progress=False)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    return render_set(SyntheticSpec(subjects=2, images_per_subject=2, seed=5), folder, workers=1, progress=False)


@pytest.fixture
def counted(monkeypatch):
    """The photographs that detectors were asked for."""
    asked = []

    def counting(images, *rest):
        asked.extend(images)
        return detect_set(images, *rest)

    monkeypatch.setattr(detections, "detect_set", counting)
    return asked


def test_points_are_the_detectors_own(rendered):
    points = detect_set(rendered.images, OWN, RUNTIME, SINGLE)
    pictures = [read_pixels(file) for file in rendered.images]
    for row, (face, *_) in enumerate(build_detector("mediapipe").detect(pictures)):
        assert (points[row] - to_paper66(face.points)).abs().max() < 0.05  # px; batches of another size
    assert (points - rendered.landmarks).norm(dim=-1).mean() < 10  # px of 320
    several = together(3, lambda ranks: detect_set(rendered.images, OWN, RUNTIME, ranks))
    assert all((one - points).abs().max() < 0.05 for one in several)


def test_points_are_found_once_and_again_where_options_differ_or_the_file_is_damaged(
    rendered, tmp_path, counted, caplog
):
    first = detect_rendered(rendered, tmp_path, OWN, RUNTIME, SINGLE)
    assert counted == list(rendered.images)
    again = detect_rendered(rendered, tmp_path, replace(OWN, tiles="auto"), RUNTIME, SINGLE)  # the default, spelt out
    assert torch.equal(again, first)
    assert len(counted) == len(rendered)
    several = together(2, lambda ranks: detect_rendered(rendered, tmp_path, OWN, RUNTIME, ranks))
    assert all(torch.equal(one, first) for one in several)
    assert len(counted) == len(rendered)
    (file,) = tmp_path.glob("landmarks-*.safetensors")
    nothing = detect_rendered(rendered, tmp_path, replace(OWN, min_score=1.0), RUNTIME, SINGLE)
    assert bool(torch.isnan(nothing).all())
    assert len(counted) == 2 * len(rendered)
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(detect_rendered(rendered, tmp_path, OWN, RUNTIME, SINGLE), first)
    assert "landmarks are found again" in caplog.text
    assert len(counted) == 3 * len(rendered)


def test_a_folder_that_cannot_be_written_does_not_stop_a_run(rendered, tmp_path, caplog):
    (tmp_path / "nowhere").write_text("a file, not a folder")
    with caplog.at_level(logging.WARNING):
        points = detect_rendered(rendered, tmp_path / "nowhere", OWN, RUNTIME, SINGLE)
    assert bool(torch.isfinite(points).all())
    assert "landmarks are not kept" in caplog.text


def test_points_of_other_detectors_are_not_kept(rendered, tmp_path, counted):
    dlib = LandmarkSourceSpec(source="dlib")
    for _ in range(2):
        detect_rendered(rendered, tmp_path, dlib, RUNTIME, SINGLE)
    assert len(counted) == 2 * len(rendered)
    assert not list(tmp_path.iterdir())
