"""The registry, the order of faces and the choice among them."""

import logging
from pathlib import Path

import pytest
import torch

from facerecon_torch.errors import DetectorError, NoFaceError
from facerecon_torch.landmarks import DETECTORS, LandmarkDetector, batches, build_detector, choose_faces
from facerecon_torch.landmarks import detector as detector_module
from facerecon_torch.landmarks.batches import detect_faces, detect_in_batches
from facerecon_torch.landmarks.detector import FaceBox, as_bytes, resize, select_faces
from facerecon_torch.landmarks.registry import detector_options, find_detector, log_licence
from facerecon_torch.landmarks.source import LandmarkSourceSpec
from facerecon_torch.structures import Detection


def _face(x0: float, side: float, score: float) -> Detection:
    return Detection(box=(x0, 0.0, x0 + side, side), score=score, points=torch.zeros(68, 2))


CPU = torch.device("cpu")
CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "landmarks"
FACES = [_face(0.0, 10.0, 2.0), _face(20.0, 30.0, 0.5), _face(60.0, 12.0, 1.0)]


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({}, [20, 0, 60]),
        ({"max_faces": 2}, [20, 0]),
        ({"min_face": 0.1}, [20, 0, 60]),  # of 100 px: the bound itself is in
        ({"min_face": 0.11}, [20, 60]),
        ({"min_face": 0.11, "max_faces": 1}, [20]),
        ({"min_face": 0.5}, []),
    ],
)
def test_selected_by_size_and_sorted_by_score_times_area(options, left) -> None:
    boxes = [FaceBox(face.box, face.score) for face in FACES]
    for faces in (FACES, boxes):
        assert [face.box[0] for face in select_faces(faces, (80, 100), **options)] == left
    assert [face.box[0] for face in select_faces(FACES, (100, 80), **options)] == left


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_face": 1.5}, r"min_face must lie in \[0, 1\], a share .*; got 1.5"),
        ({"min_face": float("nan")}, "min_face must lie in"),
        ({"max_faces": 0}, "max_faces must be an integer of at least 1; got 0"),
        ({"max_faces": True}, "max_faces must be an integer"),
    ],
)
@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_refuses_a_wrong_selection(name, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        build_detector(name, **options)
    with pytest.raises(ValueError, match=f"landmarks.{message}"):
        LandmarkSourceSpec(source=name, **options)


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_takes_the_selection_of_the_config(name) -> None:
    assert LandmarkSourceSpec(source=name).options(CPU).keys() <= {"source", "device"}
    asked = LandmarkSourceSpec(source=name, min_face=0.25, max_faces=3).options(CPU)
    assert (asked["min_face"], asked["max_faces"]) == (0.25, 3)
    assert asked.keys() <= set(detector_options(name))


def test_auto_hands_its_options_on() -> None:
    pytest.importorskip("dlib")
    detector = build_detector("auto", min_score=0.3, min_face=0.1, max_faces=2)
    assert (detector.min_score, detector.min_face, detector.max_faces) == (0.3, 0.1, 2)
    own = build_detector(detector.name).min_score
    assert build_detector("auto").min_score == own


@pytest.mark.parametrize(
    ("source", "option", "takers"),
    [
        ("file", {"min_score": 0.5}, "min_score is for auto, mediapipe, face_alignment, dlib"),
        ("noise", {"min_score": 0.5}, "min_score is for auto, mediapipe, face_alignment, dlib"),
        ("truth", {"min_face": 0.5}, "min_face is for auto, mediapipe, face_alignment, dlib, file"),
        ("set", {"max_faces": 1}, "max_faces is for auto, mediapipe, face_alignment, dlib, file"),
        ("dlib", {"dtype": "float16"}, "dtype is for face_alignment"),
    ],
)
def test_an_option_that_a_source_lacks_names_its_takers(source, option, takers) -> None:
    with pytest.raises(ValueError, match=rf"landmarks\.{takers}.*; got source '{source}'"):
        LandmarkSourceSpec(source=source, **option)


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
    with pytest.raises(ValueError, match="auto, mediapipe, face_alignment, dlib, file; got 'mtcnn'"):
        build_detector("mtcnn")
    with pytest.raises(TypeError, match="options source, origin, convention, min_face, max_faces; got colour"):
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
    """A detector that remembers what it was given, and fails where it is shown a certain picture."""

    name, licence, convention = "seen", "none", "ibug"

    def __init__(self, fails_on: int | None = None, answers: int | None = None) -> None:
        self.calls: list[list[Path | None]] = []
        self.fails_on, self.answers = fails_on, answers

    def detect(self, images, *, paths=None):
        self.autocast = torch.is_autocast_enabled("cpu")
        self.calls.append(list(paths))
        if any(int(image[0, 0, 0]) == self.fails_on for image in images):
            raise MemoryError
        return [[]] * (len(images) if self.answers is None else self.answers)


class _Read:
    def __init__(self, number: int) -> None:
        self.pixels = torch.full((3, 4, 5), number, dtype=torch.uint8)


def test_detectors_see_no_autocast() -> None:
    detector = _Seen()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert detect_faces(detector, [_Read(1).pixels], [None]) == [[]]
    assert not detector.autocast


@pytest.mark.parametrize("together", [1, 2, 4, 100])
def test_pictures_are_searched_in_batches_and_errors_keep_their_places(together) -> None:
    unreadable = ValueError("unreadable")
    loaded = [(Path(f"{k}.png"), unreadable if k == 2 else _Read(k)) for k in range(7)]
    detector = _Seen(fails_on=5)
    found = list(detect_in_batches(detector, iter(loaded), together=together))
    assert [path for path, _ in found] == [path for path, _ in loaded]
    assert found[2][1] is unreadable
    assert isinstance(found[5][1], MemoryError)
    for k in (0, 1, 3, 4, 6):
        assert found[k][1] == (loaded[k][1], [])
    assert len(detector.calls[0]) == {1: 1, 2: 2, 4: 3, 100: 6}[together]
    assert all(path != Path("2.png") for call in detector.calls for path in call)


def test_a_batch_is_bounded_by_bytes(monkeypatch) -> None:
    monkeypatch.setattr(batches, "_BATCH_BYTES", 2 * 60)
    detector = _Seen()
    assert len(list(detect_in_batches(detector, [(None, _Read(k)) for k in range(5)]))) == 5
    assert [len(call) for call in detector.calls] == [2, 2, 1]


def test_a_detector_must_answer_for_every_picture() -> None:
    with pytest.raises(DetectorError, match="the faces of 2 images; got those of 1"):
        detect_faces(_Seen(answers=1), [_Read(0).pixels] * 2, [None, None])
