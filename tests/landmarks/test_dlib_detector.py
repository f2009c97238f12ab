"""dlib on real photographs, and what it says when it cannot run."""

import importlib.util
import io
import itertools
import pickle
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from facerecon_torch.errors import DetectorError
from facerecon_torch.images.convert import as_pixels
from facerecon_torch.landmarks import GROUPS_68, LandmarkDetector, build_detector, interocular, mirror_points
from facerecon_torch.landmarks.detector import as_bytes, resize
from facerecon_torch.landmarks.dlib_detector import DlibDetector

pytest.importorskip("dlib")


@pytest.fixture(scope="module")
def detector() -> LandmarkDetector:
    return build_detector("dlib")


def _require_face(points: torch.Tensor) -> None:
    """A frontal face the right way up: eyes over nose over mouth over chin, left of right."""
    middle = {name: points[list(rows)].mean(dim=0) for name, rows in GROUPS_68.items()}
    order = [middle[name][1] for name in ("brows", "eyes", "nose", "mouth")] + [points[8, 1]]
    assert all(a < b for a, b in itertools.pairwise(order))
    assert points[36, 0] < points[39, 0] < points[42, 0] < points[45, 0]
    assert points[0, 0] < points[36, 0]
    assert points[45, 0] < points[16, 0]


def test_astronaut_has_one_face_in_its_place(detector: LandmarkDetector, astronaut: torch.Tensor) -> None:
    faces = detector.detect([astronaut])[0]
    assert len(faces) == 1
    _require_face(faces[0].points)
    assert 1 < faces[0].score < 2
    points = faces[0].points
    # read off the photograph at twelvefold size: pupils and corners of the mouth
    assert_close(points[36:42].mean(dim=0), torch.tensor([202.7, 100.8]).double(), atol=3, rtol=0)
    assert_close(points[42:48].mean(dim=0), torch.tensor([246.2, 102.7]).double(), atol=3, rtol=0)
    assert_close(points[[48, 54]], torch.tensor([[202.4, 138.8], [246.2, 138.6]]).double(), atol=3, rtol=0)
    assert points.dtype == torch.float64


@pytest.mark.parametrize(("quality", "mirrored"), [(60, True), (75, False), (85, True), (95, False)])
def test_astronaut_as_jpeg_has_one_face_too(astronaut: torch.Tensor, quality: int, mirrored: bool) -> None:
    whole = as_bytes(astronaut.flip(-1) if mirrored else astronaut)
    file = io.BytesIO()
    Image.fromarray(whole).save(file, "JPEG", quality=quality)
    picture = as_pixels(file.getvalue())
    (face,) = DlibDetector().detect([picture])[0]
    assert face.score > 1
    # a patch on the sleeve, larger than the face, passes dlib's own bound
    weak = DlibDetector(min_score=0.0).detect([picture])[0][1:]
    assert all(other.score < 0.2 * face.score for other in weak)


def test_a_weak_face_by_itself_stays(astronaut: torch.Tensor) -> None:
    score = DlibDetector().detect([astronaut])[0][0].score
    assert DlibDetector(min_score=score - 1e-6).detect([astronaut])[0]
    assert DlibDetector(min_score=score + 1e-6, retries=0).detect([astronaut])[0] == []
    patch = DlibDetector(min_score=-0.2).detect([astronaut])[0]
    assert [face.score > 0 for face in patch] == [True, False]


def test_small_and_further_faces_can_be_left_out(astronaut: torch.Tensor) -> None:
    face = astronaut[:, 30:230, 120:320]
    pair = torch.cat([resize(face, 2.0), resize(face, 1.0).repeat(1, 2, 1)], dim=-1)[:, :300]  # 600 px wide
    large, small = DlibDetector().detect([pair])[0]
    assert large.box[2] < 400 < small.box[0]
    for options in ({"max_faces": 1}, {"min_face": 0.2}):
        (only,) = DlibDetector(**options).detect([pair])[0]
        assert (only.box, only.score) == (large.box, large.score)
        assert torch.equal(only.points, large.points)


def test_portraits(detector: LandmarkDetector, portrait: torch.Tensor) -> None:
    faces = detector.detect([portrait])[0]
    assert len(faces) == 1
    _require_face(faces[0].points)


def test_points_have_a_precision_of_their_own(
    detector: LandmarkDetector, astronaut: torch.Tensor, device: torch.device, dtype: torch.dtype
) -> None:
    points = detector.detect([astronaut.to(device, dtype)])[0][0].points
    assert (points.device.type, points.dtype) == ("cpu", torch.float64)
    eight_bit = (astronaut * 255).round().to(torch.uint8)
    for same in (astronaut, eight_bit):
        assert torch.equal(points, detector.detect([same])[0][0].points)


def test_a_shifted_picture_shifts_the_answer(detector: LandmarkDetector, astronaut: torch.Tensor) -> None:
    # by a multiple of the detector's 8 px cell
    moved = detector.detect([astronaut[:, 16:, 24:]])[0][0]
    still = detector.detect([astronaut])[0][0]
    difference = still.points - moved.points - torch.tensor([24.0, 16.0])
    assert float(difference.norm(dim=-1).mean()) < 0.02 * float(interocular(still.points))


def test_a_mirrored_picture_mirrors_the_answer(detector: LandmarkDetector, astronaut: torch.Tensor) -> None:
    still, flipped = detector.detect([astronaut])[0][0].points, detector.detect([astronaut.flip(-1)])[0][0].points
    difference = mirror_points(flipped, astronaut.shape[-1]) - still
    assert float(difference.norm(dim=-1).mean()) < 0.02 * float(interocular(still))


def test_two_people_are_two_faces(detector: LandmarkDetector, astronaut: torch.Tensor) -> None:
    face = astronaut[:, 30:230, 120:320]
    pair = torch.cat([resize(face, 2.0), resize(face, 1.0).repeat(1, 2, 1)], dim=-1)[:, :300]
    faces = detector.detect([pair])[0]
    assert len(faces) == 2
    assert faces[0].box[2] < 400 < faces[1].box[0]


def test_a_small_face_is_found_on_the_second_look(detector: LandmarkDetector, astronaut: torch.Tensor) -> None:
    small = resize(astronaut, 0.5)
    assert DlibDetector(retries=0).detect([small])[0] == []
    faces = detector.detect([small])[0]
    assert len(faces) == 1
    _require_face(faces[0].points)
    error = (faces[0].points + 0.5) * 2 - 0.5 - detector.detect([astronaut])[0][0].points
    assert float(error.norm(dim=-1).mean()) < 0.06 * float(interocular(faces[0].points) * 2)


def test_points_of_a_small_face_are_finer_than_whole_pixels(
    detector: LandmarkDetector, astronaut: torch.Tensor
) -> None:
    points = detector.detect([resize(astronaut, 0.5)])[0][0].points
    assert float((points - points.round()).abs().max()) > 0.2


def test_a_large_picture_is_searched_small_and_measured_in_full(astronaut: torch.Tensor) -> None:
    large = resize(astronaut, 2.0)
    face = DlibDetector(max_side=512).detect([large])[0][0]
    still = DlibDetector().detect([astronaut])[0][0]
    assert_close(torch.tensor(face.box), (torch.tensor(still.box) + 0.5) * 2 - 0.5, atol=1e-3, rtol=0)
    difference = (face.points + 0.5) / 2 - 0.5 - still.points
    assert float(difference.norm(dim=-1).mean()) < 0.03 * float(interocular(still.points))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (7, 5), (200, 200)])
def test_no_face_is_an_empty_list(detector: LandmarkDetector, size: tuple[int, int]) -> None:
    assert detector.detect([torch.full((3, *size), 0.5)])[0] == []


@pytest.mark.parametrize(
    "image",
    [torch.zeros(1, 8, 8), torch.zeros(1, 3, 8, 8), torch.zeros(3, 8, 0), torch.zeros(3, 8, 8, dtype=torch.int32)],
)
def test_wrong_shape_or_dtype_is_refused(detector: LandmarkDetector, image: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"image must be a tensor \[3, H, W\] of floats"):
        detector.detect([image])[0]


@pytest.mark.parametrize("value", [float("nan"), 255.0, -1.0])
def test_another_range_is_refused(detector: LandmarkDetector, value: float) -> None:
    with pytest.raises(ValueError, match=r"image must lie in \[0, 1\]"):
        detector.detect([torch.full((3, 8, 8), value)])[0]


def test_pickles_without_its_native_part(detector: LandmarkDetector, astronaut: torch.Tensor) -> None:
    before = detector.detect([astronaut])[0][0].points
    payload = pickle.dumps(detector)
    assert len(payload) < 2000
    assert torch.equal(pickle.loads(payload).detect([astronaut])[0][0].points, before)


@pytest.mark.parametrize("package", ["dlib", "face_recognition_models"])
def test_missing_extra_says_what_to_install(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == package else real(name, *a))
    with pytest.raises(DetectorError, match=r'pip install "facerecon-torch\[dlib\]"') as caught:
        build_detector("dlib")
    assert package.replace("_", "-") in str(caught.value)


def test_missing_and_damaged_predictor_file_is_named(tmp_path: Path, astronaut: torch.Tensor) -> None:
    with pytest.raises(DetectorError, match=r"expected the predictor file .*none\.dat"):
        DlibDetector(predictor=tmp_path / "none.dat")
    (tmp_path / "bad.dat").write_bytes(b"not a predictor")
    detector = DlibDetector(predictor=tmp_path / "bad.dat")
    with pytest.raises(DetectorError, match=r"68-point shape predictor in .*bad\.dat"):
        detector.detect([astronaut])[0]


@pytest.mark.parametrize("option", [{"max_side": 0}, {"upsample": -1}, {"retries": -1}, {"min_score": float("nan")}])
def test_wrong_options_are_refused(option: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="max_side must be at least 1"):
        DlibDetector(**option)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_batch_of_mixed_sizes_is_searched_as_its_pictures_are(detector, astronaut, threads):
    pictures = [astronaut, astronaut[:, :300], resize(astronaut, 0.7), torch.zeros(3, 90, 90), astronaut.flip(-1)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        batch = DlibDetector().detect(pictures)
        with pytest.raises(ValueError, match="image must lie in"):
            detector.detect([astronaut, 300 * astronaut])
    finally:
        torch.set_num_threads(before)
    alone = [detector.detect([picture])[0] for picture in pictures]
    assert [len(faces) for faces in batch] == [len(faces) for faces in alone]
    assert [bool(faces) for faces in batch] == [True, True, True, False, True]
    for faces, expected in zip(batch, alone):
        for face, other in zip(faces, expected):
            assert (face.box, face.score) == (other.box, other.score)
            assert torch.equal(face.points, other.points)


def test_one_picture_takes_one_thread_and_a_batch_those_of_torch(astronaut, monkeypatch) -> None:
    running, most, lock = set(), [0], threading.Lock()
    search = DlibDetector._found

    def watched(self, picture):
        with lock:
            running.add(threading.get_ident())
            most[0] = max(most[0], len(running))
        return search(self, picture)

    monkeypatch.setattr(DlibDetector, "_found", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        DlibDetector().detect([astronaut])
        assert running == {threading.get_ident()}
        running.clear()
        DlibDetector().detect([astronaut] * 5)
    finally:
        torch.set_num_threads(before)
    assert threading.get_ident() not in running
    assert 1 <= most[0] <= 2
