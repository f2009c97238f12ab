"""The registry, the order of faces and the choice among them."""

import logging
from pathlib import Path

import pytest
import torch

from facerecon_torch.errors import NoFaceError
from facerecon_torch.landmarks import DETECTORS, LandmarkDetector, build_detector, choose_faces
from facerecon_torch.landmarks import detector as detector_module
from facerecon_torch.landmarks.detector import as_bytes, detect_faces, resize, sort_faces
from facerecon_torch.landmarks.registry import find_detector, log_licence
from facerecon_torch.structures import Detection


def _face(x0: float, side: float, score: float) -> Detection:
    return Detection(box=(x0, 0.0, x0 + side, side), score=score, points=torch.zeros(68, 2))


CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "landmarks"
FACES = [_face(0.0, 10.0, 2.0), _face(20.0, 30.0, 0.5), _face(60.0, 12.0, 1.0)]


def test_sorted_by_score_times_size() -> None:
    assert [f.box[0] for f in sort_faces(FACES)] == [20, 0, 60]


def test_choices() -> None:
    assert choose_faces(FACES) == [FACES[1]]
    assert choose_faces(FACES, "all") == FACES
    assert choose_faces(FACES, 0) == [FACES[0]]
    assert choose_faces(FACES, 2) == [FACES[2]]


@pytest.mark.parametrize("which", ["largest", "all", 0])
def test_no_face_names_the_picture(which: str | int) -> None:
    with pytest.raises(NoFaceError, match=r"photo\.jpg: expected at least one face"):
        choose_faces([], which, source="photo.jpg")


def test_missing_position_and_unknown_choice() -> None:
    with pytest.raises(NoFaceError, match="position 3; the detector found 3"):
        choose_faces(FACES, 3)
    for wrong in ("best", -1, True):
        with pytest.raises(ValueError, match="which must be"):
            choose_faces(FACES, wrong)


def test_unknown_name_and_option() -> None:
    with pytest.raises(ValueError, match="auto, face_alignment, dlib, file; got 'mtcnn'"):
        build_detector("mtcnn")
    with pytest.raises(TypeError, match="options source, pts_origin; got colour"):
        build_detector("file", colour=1)


def test_licence_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    log_licence.cache_clear()
    with caplog.at_level(logging.WARNING):
        detector = build_detector("file")
        build_detector("file")
    assert [r.getMessage() for r in caplog.records] == [f"landmark detector file: {detector.licence}"]
    assert isinstance(detector, LandmarkDetector)
    assert all("commercial" in find_detector(name).licence for name in ("dlib", "face_alignment"))


@pytest.mark.parametrize("name", DETECTORS)
def test_every_name_has_a_builder_and_a_config(name: str) -> None:
    assert callable(find_detector(name))
    assert (CONFIGS / f"{name}.yaml").read_text().count(f"source: {name}") == 1


def test_bytes_round_to_nearest() -> None:
    image = torch.tensor([0.0, 0.5, 1.0, 2.0, -1.0, 1.4 / 255]).reshape(1, 2, 3).expand(3, 2, 3)
    assert as_bytes(image)[..., 0].tolist() == [[0, 128, 255], [255, 0, 1]]
    assert as_bytes(image).flags.c_contiguous


@pytest.mark.parametrize("scale", [0.5, 2.0, 3.0])
def test_resize_keeps_the_half_pixel_rule(scale: float) -> None:
    ramp = torch.arange(40.0).expand(3, 20, 40) / 40
    resized = resize(ramp, scale)
    q = torch.arange(resized.shape[-1])
    inner = (q > 4 * scale) & (q < 35 * scale)
    torch.testing.assert_close(resized[0, 5, inner], (((q + 0.5) / scale - 0.5) / 40)[inner])


@pytest.mark.parametrize("scale", [0.1, 0.37, 1.9])
def test_bytes_are_resized_as_their_floats_are_and_bands_show_nowhere(
    scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = torch.randint(0, 256, (3, 90, 70), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    floats = pixels.float() / 255
    size = [round(n * scale) for n in (90, 70)]
    at_once = torch.nn.functional.interpolate(floats[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    for band in (2**22, 70 * 7):
        monkeypatch.setattr(detector_module, "_BAND_PIXELS", band)
        assert torch.equal(resize(floats, scale), at_once)
        assert torch.equal(resize(pixels, scale), at_once)
    assert resize(pixels, 1.0) is pixels
    assert (as_bytes(pixels) == as_bytes(floats)).all()


class _Seen:
    """A detector that remembers what it was given."""

    name, licence = "seen", "none"

    def __init__(self, takes_bytes: bool) -> None:
        self.takes_bytes = takes_bytes

    def detect(self, image: torch.Tensor, *, path: Path | None = None) -> list[Detection]:
        self.image, self.autocast = image, torch.is_autocast_enabled("cpu")
        return []


def test_detectors_get_the_picture_that_they_take_and_no_autocast() -> None:
    pixels = torch.full((3, 4, 5), 51, dtype=torch.uint8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for takes_bytes in (False, True):
            detector = _Seen(takes_bytes)
            assert detect_faces(detector, pixels) == []
            assert detector.image.dtype == (torch.uint8 if takes_bytes else torch.float32)
            assert not detector.autocast
