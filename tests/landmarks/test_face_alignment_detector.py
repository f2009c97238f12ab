"""The real face-alignment package on made-up weights whose answer is known, and what is said when weights lack.

The weights: S3FD fires in one cell of its coarsest map only (2 x 2 in a picture of 128 px), with a box of our choice;
2D-FAN's last heat map is flat, so that every landmark is the first cell of the heat map, a known corner of its crop.
"""

import math
import pickle
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.errors import DetectorError
from facerecon_torch.landmarks import build_detector
from facerecon_torch.landmarks import face_alignment_detector as adapter
from facerecon_torch.landmarks.auto import _say
from facerecon_torch.landmarks.detector import resize

numba = pytest.importorskip("numba")
# Compiling the package's two small numba functions takes longer than everything else in this file.
with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
    warnings.simplefilter("ignore")
    patch.setattr(numba.config, "DISABLE_JIT", True)
    pytest.importorskip("face_alignment")

BOX = (28.0, 30.0, 92.0, 110.0)
_LEVELS = ("conv3_3_norm", "conv4_3_norm", "conv5_3_norm", "fc7", "conv6_2", "conv7_2")


def _s3fd_weights() -> dict[str, torch.Tensor]:
    from face_alignment.detection.sfd.net_s3fd import s3fd

    weights = s3fd().state_dict()
    for level in _LEVELS:
        for kind in ("conf", "loc"):
            weights[f"{level}_mbox_{kind}.weight"].zero_()
            weights[f"{level}_mbox_{kind}.bias"].zero_()
        bias = weights[f"{level}_mbox_conf.bias"]
        bias.fill_(10.0)
        bias[-1] = -10.0
    # On the 2 x 2 cells of the coarsest map only the first has a neighbour below it on the right.
    weights["conv7_2.weight"].zero_()
    weights["conv7_2.bias"].fill_(1.0)
    weights["conv7_2_mbox_conf.weight"][:, 0, 2, 2] = torch.tensor([-11.0, 11.0])
    width, height = BOX[2] - BOX[0], BOX[3] - BOX[1]
    centre = ((BOX[0] + BOX[2]) / 2, (BOX[1] + BOX[3]) / 2)
    weights["conv7_2_mbox_loc.bias"].copy_(  # offsets to the prior box of 512 px around (64, 64), in its units
        torch.tensor(
            [
                (centre[0] - 64) / 51.2,
                (centre[1] - 64) / 51.2,
                math.log(width / 512) / 0.2,
                math.log(height / 512) / 0.2,
            ]
        )
    )
    return weights


def _fan_weights() -> dict[str, torch.Tensor]:
    from face_alignment.models import FAN

    weights = FAN(4).state_dict()
    weights["l3.weight"].zero_()
    weights["l3.bias"].fill_(0.5)
    return weights


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine the small layers of these networks wait for their threads most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def torch_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("torch_home")
    folder = home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(_fan_weights(), folder / adapter.WEIGHT_FILES[0])
    torch.save(_s3fd_weights(), folder / adapter.WEIGHT_FILES[1])
    yield home
    shutil.rmtree(home)  # 180 MB


@pytest.fixture
def with_weights(torch_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(torch_home))


@pytest.fixture
def without_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def _expected_point(box: tuple[float, float, float, float]) -> torch.Tensor:
    """Centre of heat map cell (0, 0) of 64 x 64 over the package's square crop."""
    side = 200 * (box[2] - box[0] + box[3] - box[1]) / 195
    centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2 - 0.12 * (box[3] - box[1]))
    return torch.tensor([c + side * (0.5 / 64 - 0.5) for c in centre])


def test_weight_files_are_those_of_the_installed_package() -> None:
    from face_alignment.api import models_urls
    from face_alignment.detection.sfd.sfd_detector import models_urls as s3fd_urls

    urls = (models_urls["2DFAN-4"], s3fd_urls["s3fd"])
    assert urls == tuple(f"{adapter._SITE}/{name}" for name in adapter.WEIGHT_FILES)


@pytest.mark.usefixtures("with_weights")
def test_known_weights_give_the_known_box_and_points(device: torch.device, dtype: torch.dtype) -> None:
    benchmark = torch.backends.cudnn.benchmark
    detector = build_detector("face_alignment", device=device, download=False)
    image = torch.full((3, 128, 128), 0.5, device=device, dtype=dtype)
    (face,) = detector.detect([image])[0]
    assert_close(torch.tensor(face.box), torch.tensor(BOX), atol=1e-3, rtol=0)
    assert face.score == pytest.approx(1 / (1 + math.exp(-2)), abs=1e-5)
    assert (face.points.device.type, face.points.dtype) == ("cpu", torch.float64)
    assert_close(face.points.float(), _expected_point(BOX).expand(68, 2), atol=1e-3, rtol=0)
    assert_close(face.point_scores, torch.ones(68).double())  # 0.5 in the picture and in its mirror image
    assert torch.backends.cudnn.benchmark == benchmark


@pytest.mark.usefixtures("with_weights")
def test_large_picture_is_searched_small_and_its_box_is_carried_back() -> None:
    detector = build_detector("face_alignment", max_side=128, download=False)
    (face,) = pickle.loads(pickle.dumps(detector)).detect([resize(torch.full((3, 128, 128), 0.5), 3.0)])[0]
    box = tuple((v + 0.5) * 3 - 0.5 for v in BOX)
    assert_close(torch.tensor(face.box), torch.tensor(box), atol=1e-2, rtol=0)
    assert_close(face.points.float(), _expected_point(face.box).expand(68, 2), atol=1e-3, rtol=0)


@pytest.mark.usefixtures("with_weights")
def test_no_face_is_an_empty_list() -> None:
    detector = build_detector("face_alignment", min_score=0.95, download=False)
    assert detector.detect([torch.full((3, 128, 128), 0.5)])[0] == []
    for size in ((1, 1), (31, 400), (2000, 20)):
        assert detector.detect([torch.zeros(3, *size)])[0] == []


def test_missing_weights_without_download_name_every_file(without_weights: Path) -> None:
    with pytest.raises(DetectorError, match="downloading is switched off") as caught:
        build_detector("face_alignment", download=False)
    for name in adapter.WEIGHT_FILES:
        assert f"python-fan/{name} at {without_weights / name}" in str(caught.value)


def test_only_the_missing_file_is_asked_for(without_weights: Path) -> None:
    without_weights.mkdir(parents=True)
    (without_weights / adapter.WEIGHT_FILES[0]).touch()
    with pytest.raises(DetectorError) as caught:
        build_detector("face_alignment", download=False)
    assert adapter.WEIGHT_FILES[0] not in str(caught.value)
    assert adapter.WEIGHT_FILES[1] in str(caught.value)


def _raiser(error: Exception) -> object:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.usefixtures("without_weights")
def test_missing_weights_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "urlopen", _raiser(URLError("no route")))
    with pytest.raises(DetectorError, match="no way to the network"):
        build_detector("face_alignment")


@pytest.mark.usefixtures("without_weights")
def test_a_download_that_fails_half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "urlopen", _raiser(HTTPError("u", 405, "HEAD not allowed", None, None)))  # type: ignore[arg-type]
    detector = build_detector("face_alignment")
    monkeypatch.setattr("torch.hub.urlopen", _raiser(URLError("cut off")))
    with pytest.raises(DetectorError, match="cut off"):
        detector.detect([torch.zeros(3, 64, 64)])[0]


def test_damaged_weights(without_weights: Path) -> None:
    without_weights.mkdir(parents=True)
    for name in adapter.WEIGHT_FILES:
        (without_weights / name).write_bytes(b"damaged")
    detector = build_detector("face_alignment", download=False)
    with pytest.raises(DetectorError, match=r"loading failed .*Delete a damaged file"):
        detector.detect([torch.zeros(3, 64, 64)])[0]


@pytest.mark.parametrize(("found", "came"), [("1.4.1", "got 1.4.1"), (None, "got nothing")])
def test_missing_or_old_package(found: str | None, came: str, monkeypatch: pytest.MonkeyPatch) -> None:
    version = _raiser(adapter.PackageNotFoundError("face-alignment")) if found is None else lambda _: found
    monkeypatch.setattr(adapter, "version", version)
    with pytest.raises(DetectorError, match=f"face-alignment 1.5 or newer; {came}"):
        build_detector("face_alignment")


def test_device_is_never_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name, options in (("face_alignment", {}), ("auto", {"convention": "ibug"})):
        with pytest.raises(DetectorError, match="cuda:0 was asked for"):
            build_detector(name, device="cuda:0", **options)
        with pytest.raises(DetectorError, match="must be cpu or cuda; got mps"):
            build_detector(name, device="mps", **options)
    with pytest.raises(DetectorError, match="detector mediapipe: device cuda:0 was asked for"):
        build_detector("auto", device="cuda:0")


@pytest.mark.usefixtures("with_weights")
def test_auto_takes_face_alignment_when_its_weights_are_there(caplog: pytest.LogCaptureFixture) -> None:
    _say.cache_clear()
    assert {build_detector("auto", convention="ibug").name for _ in range(2)} == {"face_alignment"}
    assert sum("detector auto" in r.getMessage() for r in caplog.records) == 1


@pytest.mark.usefixtures("without_weights")
def test_auto_falls_back_to_dlib_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("dlib")
    _say.cache_clear()
    assert {build_detector("auto", convention="ibug").name for _ in range(2)} == {"dlib"}
    said = [r.getMessage() for r in caplog.records if "detector auto" in r.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("detector auto: dlib, because")


@pytest.mark.usefixtures("without_weights")
def test_auto_without_any_detector_names_both_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    with pytest.raises(DetectorError, match="got neither") as caught:
        build_detector("auto", convention="ibug")
    assert adapter.WEIGHT_FILES[0] in str(caught.value)
    assert 'pip install "facerecon-torch[dlib]"' in str(caught.value)


@pytest.mark.parametrize("options", [{"max_side": 8}, {"min_score": 1.0}, {"min_score": float("nan")}])
def test_wrong_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="max_side must be at least 32"):
        build_detector("face_alignment", download=False, **options)
