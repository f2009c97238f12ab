"""MediaPipe as a landmark detector: which pictures have faces, batches, tiles, the map to iBUG, and conventions."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import skimage
import skimage.data
import torch
from torch import Tensor
from torch.testing import assert_close

from facerecon_torch.cascade.checkpoint import pretrained_path
from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.errors import DetectorError
from facerecon_torch.images.read import read_pixels
from facerecon_torch.landmarks import build_detector, mediapipe_detector
from facerecon_torch.landmarks.mediapipe_detector import MediapipeDetector
from facerecon_torch.landmarks.scheme import interocular, mirror_points, to_paper66

FACE_FREE = ("brick", "grass", "gravel", "coffee", "rocket", "clock", "moon", "page", "retina", "text", "horse")
DECEIVERS = ("chelsea", "cat", "colorwheel", "logo", "hubble_deep_field")


def _picture(name: str) -> Tensor:
    loaded = getattr(skimage.data, name)()
    grey = np.asarray(loaded if loaded.dtype == np.uint8 else loaded * 255, dtype=np.uint8)
    image = torch.from_numpy(np.ascontiguousarray(grey if grey.ndim == 3 else np.stack([grey] * 3, -1)))
    return image[..., :3].permute(2, 0, 1).contiguous()


@pytest.fixture(scope="module")
def detector() -> MediapipeDetector:
    return MediapipeDetector()


@pytest.fixture(scope="module")
def portrait() -> Tensor:
    return _picture("astronaut")


@pytest.mark.parametrize("tiles", ["auto", "always"])
def test_no_face_where_there_is_none(tiles: str) -> None:
    folder = Path(skimage.__file__).parent / "data"
    pictures = [_picture(name) for name in (*FACE_FREE, *DECEIVERS)]
    pictures += [read_pixels(folder / f"motorcycle_{side}.png") for side in ("left", "right")]  # a headlamp in a tile
    found = MediapipeDetector(tiles=tiles).detect(pictures)
    assert [len(faces) for faces in found] == [0] * len(pictures)


def test_a_batch_of_any_sizes_answers_as_its_pictures_alone(detector: MediapipeDetector, portrait: Tensor) -> None:
    pictures = [portrait, portrait[:, :300, 100:420].float() / 255, _picture("brick"), portrait[:, ::2, ::2]]
    together = detector.detect(pictures)
    assert [len(faces) for faces in together] == [1, 1, 0, 1]
    assert detector.detect([]) == []
    for picture, faces in zip(pictures, together):
        for face, alone in zip(faces, detector.detect([picture])[0], strict=True):
            assert_close(face.points, alone.points, rtol=0, atol=1e-3)
            assert_close(face.score, alone.score, rtol=0, atol=1e-4)


@pytest.mark.parametrize("count", [2, 3])
def test_all_faces_of_a_group_are_found(count: int, detector: MediapipeDetector, portrait: Tensor) -> None:
    """Each face is below 0.15 of the picture, where a search of the whole picture finds some of them."""
    group = torch.cat([torch.cat([portrait] * count, dim=-1)] * count, dim=-2)
    (faces,) = detector.detect([group])
    side = portrait.shape[-1]
    places = {(int(face.points[30, 0]) // side, int(face.points[30, 1]) // side) for face in faces}
    assert (len(faces), len(places)) == (count**2, count**2)
    alone = detector.detect([portrait])[0][0].points
    for face in faces:
        corner = (face.points[30] - alone[30]).div(side).round() * side
        assert float((face.points - corner - alone).norm(dim=-1).mean()) < 0.03 * float(interocular(alone))


def test_a_portrait_is_not_searched_in_tiles(portrait: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    searched = []
    search = mediapipe_detector._in_tiles
    monkeypatch.setattr(
        mediapipe_detector, "_in_tiles", lambda found, nets: searched.append(found) or search(found, nets)
    )
    MediapipeDetector().detect([portrait, portrait[:, ::2, ::2]])
    assert [len(pictures) for pictures in searched] == [0]


def test_points_follow_the_picture(detector: MediapipeDetector, portrait: Tensor) -> None:
    """A mirrored picture has mirrored points, and one of half the size has points at half the places."""
    whole, mirrored, half = (
        detector.detect([image])[0][0].points for image in (portrait, portrait.flip(-1), portrait[:, ::2, ::2])
    )
    unit = interocular(whole)
    assert float((mirror_points(mirrored, portrait.shape[-1]) - whole).norm(dim=-1).mean()) < 0.03 * float(unit)
    assert float((half * 2 - whole).norm(dim=-1).mean()) < 0.03 * float(unit)


@pytest.mark.parametrize("side", [900, 1500])
def test_small_faces_are_found_in_tiles(side: int, portrait: Tensor) -> None:
    """The portrait's face is 100 px wide: 11 and 7 % of these pictures."""
    picture = torch.full((3, side, side), 120, dtype=torch.uint8)
    picture[:, side - 512 :, side - 512 :] = portrait
    assert len(MediapipeDetector(tiles="always").detect([picture])[0]) == 1
    (face,) = MediapipeDetector().detect([picture])[0]
    whole = MediapipeDetector().detect([portrait])[0][0].points + (side - 512)
    assert float((face.points - whole).norm(dim=-1).mean()) < 0.05 * float(interocular(whole))


def test_the_points_are_close_to_those_of_dlib(detector: MediapipeDetector, portrait: Tensor) -> None:
    """On a photograph the two conventions differ by 3 % of the distance of the outer eye corners inside, and by 8 % on
    the contour."""
    pytest.importorskip("dlib")
    face = detector.detect([portrait])[0][0]
    other = build_detector("dlib").detect([portrait])[0][0]
    error = (to_paper66(face.points) - to_paper66(other.points)).norm(dim=-1) / interocular(other.points)
    assert float(error[:49].mean()) < 0.04
    assert float(error[49:].mean()) < 0.10


def test_a_copy_for_another_process_answers_alike(detector: MediapipeDetector, portrait: Tensor) -> None:
    copy = pickle.loads(pickle.dumps(detector))
    assert copy._networks is None
    assert_close(copy.detect([portrait])[0][0].points, detector.detect([portrait])[0][0].points)


def test_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="tiles must be never, auto, always; got 'often'"):
        MediapipeDetector(tiles="often")
    assert build_detector("auto", tiles="always").tiles == "always"
    with pytest.raises(ValueError, match="tiles is for mediapipe; auto of convention ibug is another detector"):
        build_detector("auto", tiles="always", convention="ibug")
    with pytest.raises(ValueError, match="min_score must lie in"):
        MediapipeDetector(min_score=1.5)


@pytest.mark.parametrize(("convention", "wrong"), [("mediapipe", "dlib"), ("ibug", "mediapipe")])
def test_a_cascade_refuses_the_other_convention(convention: str, wrong: str, portrait: Tensor) -> None:
    pytest.importorskip("dlib")
    model = FaceReconstructor.from_pretrained(pretrained_path(convention), detector=wrong)
    with pytest.raises(DetectorError, match=f"detector {wrong} finds .* landmarks; .* trained for {convention} ones"):
        model.predict(portrait)


@pytest.mark.parametrize("detector", ["auto", "mediapipe", "dlib"])
def test_the_shipped_cascade_follows_the_detector(detector: str, portrait: Tensor) -> None:
    pytest.importorskip("dlib")
    model = FaceReconstructor.from_pretrained(detector=detector)
    assert model.spec.convention == ("ibug" if detector == "dlib" else "mediapipe")
    assert len(model.predict(portrait)[0]) == 1


def test_auto_follows_the_cascade(portrait: Tensor) -> None:
    pytest.importorskip("dlib")
    model = FaceReconstructor.from_pretrained(pretrained_path("ibug"))
    assert model.landmark_detector.convention == "ibug"
