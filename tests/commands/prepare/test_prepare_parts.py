"""The parts of `facerecon prepare`: its configs and calls, its units, the face it takes and the pictures it draws."""

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from torch.testing import assert_close

from facerecon_torch.commands.cli import main
from facerecon_torch.commands.config_keys import config_folder
from facerecon_torch.commands.prepare.read import find_landmarks
from facerecon_torch.commands.prepare.report import choose_pictured
from facerecon_torch.commands.prepare.run import plan_shards
from facerecon_torch.commands.prepare.specs import CropFileSpec, PrepareSpec, PrepareSpecs
from facerecon_torch.config.recorded import build
from facerecon_torch.data.recordings import Recording, open_data_set
from facerecon_torch.landmarks.file_landmarks import FileLandmarks
from facerecon_torch.landmarks.scheme import to_paper66
from facerecon_torch.registration.scan.register import RegistrationSpec
from facerecon_torch.structures import Detection
from tests.commands.prepare.bosphorus_folder import words, write_folder

GROUPS = ("model", "data", "landmarks", "registration", "prepare", "runtime")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("bosphorus"), subjects=2, scans=5)


def test_pictures_are_of_every_class_and_of_different_people(tmp_path):
    recordings = [
        Recording(f"{s}_{kind}_{k}", s, kind, "x", tmp_path, ())
        for s in "abc"
        for kind in ("N", "E", "O")
        for k in "01"
    ]
    assert choose_pictured(recordings, 3) == {"a_N_0", "b_E_0", "c_O_0"}
    assert choose_pictured(recordings, 0) == frozenset()
    assert len(choose_pictured(recordings, 100)) == len(recordings)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["data.root=/nowhere"], "folders bs000, bs001, ... of subjects; got nothing"),
        (["data.classes=[SMILE]"], "classes must be among N, E"),
        (["data.subjects=[bs777]"], "data.subjects must be among bs000, bs001, ...; got bs777"),
        (["data=synthetic"], "data must be a set of recorded scans"),
        (["landmarks=noise"], "landmarks must be a detector or file for recordings"),
        (["prepare.batch=0"], "prepare.batch must be an integer of at least 1"),
        (["prepare.max_failures=2"], "prepare.max_failures must be a share in [0, 1]; got 2"),
        (["gt.identity=per_person"], "identity"),
    ],
)
def test_wrong_calls_name_the_key(written, tmp_path, capfd, more, message):
    given = words(written, tmp_path / "out", *more)
    if more == ["data=synthetic"]:
        given = [word for word in given if not word.startswith("data.root")]
    assert main(given) == 2
    told = capfd.readouterr()
    assert message in told.out + told.err
    assert not (tmp_path / "out").exists()


def specs_of(*overrides: str) -> PrepareSpecs:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("prepare", overrides=["output=out", *overrides])
    return PrepareSpecs(**{name: build(config[name]) for name in GROUPS})


@pytest.mark.parametrize("data", ["bosphorus", "facewarehouse", "frgc"])
def test_the_configs_build_and_repeat_the_defaults(data):
    specs = specs_of(f"data={data}")
    assert specs.data.name == data
    assert specs.prepare == PrepareSpec()
    assert specs.registration == RegistrationSpec()
    assert specs_of("gt.identity=per_subject").registration.identity == "per_subject"


def test_a_misspelt_key_fails():
    with pytest.raises(ConfigCompositionException, match="bacth"):
        specs_of("prepare.bacth=3")
    with pytest.raises(ValueError, match="unexpected keyword"):
        specs_of("+prepare.crop.quality=3")


def test_shards_are_batches_or_whole_subjects(tmp_path):
    recordings = [Recording(f"{s}{k}", s, "N", "N", tmp_path, ()) for s in "ab" for k in range(3)]
    batches = {
        name: [r.name for r in group] for name, group in plan_shards(recordings, 4, whole_subjects=False).items()
    }
    assert batches == {"000000": ["a0", "a1", "a2", "b0"], "000001": ["b1", "b2"]}
    subjects = [[r.name for r in group] for group in plan_shards(recordings, 2, whole_subjects=True).values()]
    assert subjects == [["a0", "a1", "a2"], ["b0", "b1", "b2"]]


class Several:
    """A detector that sees the face of the scan, moved, and others."""

    name = "several"
    licence, convention = "none", "ibug"

    def __init__(self, points, shifts):
        self._points, self._shifts = points, shifts
        self.seen = []

    @staticmethod
    def weight_files():
        return []

    def detect(self, images, *, paths=None):
        self.seen += [tuple(image.shape) for image in images]
        faces = [
            Detection(box=(0.0, 0.0, 9.0, 9.0), score=1.0, points=self._points + torch.tensor(shift))
            for shift in self._shifts
        ]
        return [faces] * len(images)


@pytest.mark.parametrize("contour", [True, False], ids=["whole", "without contour"])
@pytest.mark.parametrize("labelled", [True, False], ids=["labelled", "unlabelled"])
def test_of_several_faces_that_of_the_scan_is_taken(written, labelled, contour):
    source = open_data_set("bosphorus")
    recording = source.list_recordings(written)[0]
    scan = source.read_recording(recording)
    if not labelled:
        scan = type(scan)(scan.surface, scan.pixels, scan.image, torch.full((66, 3), torch.nan))
    points = FileLandmarks().detect([scan.image], paths=[recording.image])[0][0].points
    if not contour:
        points[:17] = torch.nan
    near, far, farther = (3.0, 2.0), (140.0, 0.0), (-150.0, 90.0)
    found, flags = find_landmarks(Several(points, [far, near, farther]), scan, recording.image)
    shift = (found - to_paper66(points + torch.tensor(near)))[: 66 if contour else 49]
    corner = shift.mean(dim=0)  # of the part of the picture that was shown
    assert_close(shift, corner.expand(len(shift), 2), atol=1e-3, rtol=0)
    assert bool(found[49:].isnan().all()) != contour
    assert float(corner.norm()) < 40
    assert flags == ()
    assert find_landmarks(Several(points, []), scan, recording.image)[1] == ("no_face",)
    none, flags = find_landmarks(Several(points, [(200.0, 0.0), farther]), scan, recording.image)
    assert flags == ("other_face",)
    assert bool(torch.isnan(none).all())


@pytest.mark.parametrize("wrong", [{"span": 0}, {"px_per_mm": float("nan")}, {"format": "gif"}])
def test_a_crop_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=rf"crop\.{next(iter(wrong))} must be"):
        CropFileSpec(**wrong)
