"""`facerecon prepare` from the files alone: samples, failures with their reasons, and runs that cannot end well."""

import errno
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException, InstantiationException
from hydra.utils import instantiate
from torch.testing import assert_close

from facerecon_torch.cli import main
from facerecon_torch.data import prepared as prepared_module
from facerecon_torch.data.bosphorus.bnt import read_bnt
from facerecon_torch.data.prepared import load_prepared
from facerecon_torch.data.recordings import Recording, open_data_set
from facerecon_torch.geometry.mesh_ops import get_backend
from facerecon_torch.images.read import read_image
from facerecon_torch.landmarks.file_landmarks import FileLandmarks
from facerecon_torch.landmarks.scheme import to_paper66
from facerecon_torch.model.tiny import tiny_topology
from facerecon_torch.pipeline.hydra_entry import config_folder
from facerecon_torch.pipeline.prepare import plan_units
from facerecon_torch.pipeline.prepare_landmarks import find_landmarks
from facerecon_torch.pipeline.prepare_specs import CropFileSpec, PrepareSpec, PrepareSpecs
from facerecon_torch.registration.register import RegistrationSpec
from facerecon_torch.structures import Detection
from tests.pipeline.bosphorus_folder import write_folder

GROUPS = ("model", "data", "landmarks", "registration", "prepare", "runtime")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("bosphorus"), subjects=2, scans=5)


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "BosphorusDB")


def words(root: Path, output: Path, *more: str) -> list[str]:
    told = ["data=bosphorus", f"data.root={root}", f"output={output}", f"model.path={root / 'tiny.safetensors'}"]
    told += ["landmarks=file", "prepare.batch=4", "prepare.spacing=2.5", "prepare.pictures=0", "runtime.device=cpu"]
    return ["prepare", *told, "runtime.workers=1", "runtime.progress=false", *more]


@pytest.fixture(scope="module")
def whole(written, tmp_path_factory):
    output = tmp_path_factory.mktemp("prepared") / "set"
    assert main(words(written, output)) == 0
    return load_prepared(output)


def content(folder: Path) -> dict[str, bytes]:
    """Every file whose bytes the recordings alone decide."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name not in ("report.json", "config.yaml"))
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_every_recording_becomes_a_sample(whole, written):
    assert len(whole) == 10
    assert whole.names == tuple(sorted(p.stem for p in written.glob("*/*.bnt")))
    assert whole.failures == {}
    assert bool(whole.has_landmarks.all())
    assert bool(torch.isfinite(whole.meshes).all())
    left = {p.name for p in whole.folder.iterdir()}
    assert left == {"set.json", "tables.safetensors", "crops", "config.yaml", "report.json", "failures.json"}


def test_the_pose_puts_the_face_onto_the_scan(whole, written):
    for k in range(0, 10, 3):
        points = read_bnt(written / whole.subjects[k] / f"{whole.names[k]}.bnt").grid.measured.float()
        placed = whole.meshes[k] @ whole.rotation[k].mT + whole.translation[k]
        nearest = get_backend().closest_point(points[None], placed[None], tiny_topology().triangles)
        assert float(nearest.distance.median()) < 0.5  # mm


def test_a_crop_holds_the_photographs_own_pixels(whole, written):
    """These photographs have fewer pixels than are kept: they are moved, not resampled."""
    for k in (0, 7):
        image = read_image(written / whole.subjects[k] / f"{whole.names[k]}.png")
        crop = read_image(whole.images[k])
        points = torch.from_numpy(np.load(written / whole.subjects[k] / f"{whole.names[k]}.npy")).float()
        shift = (whole.landmarks[k] - to_paper66(points)).mean(dim=0)
        assert_close(whole.landmarks[k] - to_paper66(points), shift.round().expand(66, 2), atol=1e-3, rtol=0)
        dx, dy = (int(s) for s in shift.round())
        assert crop.shape[1] == crop.shape[2]
        assert abs(crop.shape[1] - 260 * 1.2) < 25  # 260 mm at 1.2 px/mm, as the mean face sees it
        inner = crop[:, dy + 40 : dy + 200, dx + 40 : dx + 180]
        assert float((inner - image[:, 40:200, 40:180]).abs().mean()) < 0.02  # of JPEG, on noise


def test_the_report_counts_by_class(whole):
    classes = json.loads((whole.folder / "report.json").read_text())["classes"]
    assert {kind: told["samples"] for kind, told in classes.items()} == {
        "all": 10,
        **dict.fromkeys(("E", "LFAU", "N", "O", "YR"), 2),
    }
    assert classes["all"]["measures"]["inlier_share"]["median"] > 0.2


def test_other_threads_give_the_same_bytes(whole, written, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert main(words(written, tmp_path / "out")) == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert content(tmp_path / "out") == content(whole.folder)


def _with_numbers(file: Path, change) -> None:
    """Change the five planes of a .bnt file."""
    data = file.read_bytes()
    start = 18 + struct.unpack_from("<H", data, 12)[0]
    planes = np.frombuffer(data[start:], dtype="<f8").reshape(5, -1).copy()
    change(planes)
    file.write_bytes(data[:start] + planes.tobytes())


def _empty(planes) -> None:
    planes[:3] = -1e9


def _nan(planes) -> None:
    planes[2, np.nonzero(planes[2] > -1e8)[0][5]] = np.nan


def test_bad_recordings_are_listed_and_the_others_unharmed(whole, folder, tmp_path):
    first = folder / "bs000"
    (first / "bs000_N_N_0.lm3").unlink()
    _with_numbers(first / "bs000_E_HAPPY_0.bnt", _empty)
    _with_numbers(first / "bs000_LFAU_12_0.bnt", _nan)
    marks = folder / "bs001" / "bs001_O_EYE_0.lm3"
    marks.write_text(marks.read_text().replace("20 landmarks", "19 landmarks"))
    np.save(folder / "bs001" / "bs001_N_N_0.npy", np.zeros((67, 2), np.float32))
    output = tmp_path / "out"
    assert main(words(folder, output, "prepare.max_failures=0.5")) == 0
    reasons = {told["name"]: told["reason"] for told in json.loads((output / "failures.json").read_text())}
    assert set(reasons) == {
        "bs000_N_N_0",
        "bs000_E_HAPPY_0",
        "bs000_LFAU_12_0",
        "bs001_O_EYE_0",
        "bs001_N_N_0",
    }
    for name, told in (
        ("bs000_N_N_0", "bs000_N_N_0.lm3: file: expected the .lm3 file of the scan"),
        ("bs000_E_HAPPY_0", "z: expected at least one measured point; got only the background"),
        ("bs000_LFAU_12_0", "z: expected numbers in [-10000, 10000]; got 1 others, the first nan"),
        ("bs001_O_EYE_0", "lines: expected 38 after the count of 19; got 40"),
        ("bs001_N_N_0", "bs001_N_N_0.npy"),
    ):
        assert told in reasons[name]
    made = load_prepared(output)
    assert made.failures == reasons
    assert set(made.names) == set(whole.names) - set(reasons)
    assert sorted(p.stem for p in (output / "crops").iterdir()) == list(made.names)


def test_too_many_failures_end_with_status_1(folder, tmp_path):
    for file in (folder / "bs000").glob("*.png"):
        file.unlink()
    output = tmp_path / "out"
    assert main(words(folder, output)) == 1
    assert len(load_prepared(output).failures) == 5


def test_no_sample_at_all_is_an_error_that_says_why(folder, tmp_path, capfd):
    for file in folder.glob("*/*.png"):
        file.unlink()
    assert main(words(folder, tmp_path / "out")) == 2
    told = capfd.readouterr().out
    assert "all 10 recordings failed, bs000_E_HAPPY_0: " in told
    assert "bs000_E_HAPPY_0.png: file: expected the .png file" in told


def test_a_full_disk_is_said_and_the_rest_follows_later(whole, written, tmp_path, monkeypatch, capfd):
    output = tmp_path / "out"
    real, calls = prepared_module.save, []

    def full(*told, **more):
        calls.append(told)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*told, **more)

    with monkeypatch.context() as patch:
        patch.setattr(prepared_module, "save", full)
        assert main(words(written, output)) == 2
    assert "no room is left on the disk; what is finished stays" in capfd.readouterr().out
    assert sorted(p.name for p in (output / "parts").iterdir()) == ["000000.safetensors", "spec.json"]
    assert not list(output.rglob("*.part"))
    assert main(words(written, output)) == 0
    assert content(output) == content(whole.folder)


def test_a_disk_without_room_is_told_before_the_work(written, tmp_path, monkeypatch, capfd):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert main(words(written, tmp_path / "out")) == 2
    assert "expected room for 10 samples, about 0.0 GB; 0.0 GB are free" in capfd.readouterr().out


def test_a_folder_of_another_set_is_refused(whole, written, tmp_path, capfd):
    output = shutil.copytree(whole.folder, tmp_path / "out")
    assert main(words(written, output, "prepare.crop.format=png")) == 2
    told = capfd.readouterr().out
    assert "was begun with crop" in told
    assert "'format': 'jpg'" in told
    assert main(words(written, output)) == 0


def test_crops_as_png_are_exact(written, tmp_path):
    output = tmp_path / "out"
    assert main(words(written, output, "prepare.crop.format=png", "data.subjects=[bs001]", "data.classes=[N]")) == 0
    made = load_prepared(output)
    assert made.names == ("bs001_N_N_0",)
    image, crop = read_image(written / "bs001" / "bs001_N_N_0.png"), read_image(made.images[0])
    points = torch.from_numpy(np.load(written / "bs001" / "bs001_N_N_0.npy")).float()
    dx, dy = (int(s) for s in (made.landmarks[0] - to_paper66(points)).mean(dim=0).round())
    assert_close(crop[:, dy + 40 : dy + 200, dx + 40 : dx + 180], image[:, 40:200, 40:180], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["data.root=/nowhere"], "folders bs000, bs001, ... of subjects; got nothing"),
        (["data.classes=[SMILE]"], "classes must be among N, E"),
        (["data.subjects=[bs777]"], "data.subjects must be among bs000, bs001, ...; got bs777"),
        (["data=synthetic"], "data must be a set of recorded scans"),
        (["landmarks=noise"], "landmarks must be auto, dlib, face_alignment or file"),
        (["prepare.batch=0"], "prepare.batch must be an integer of at least 1"),
        (["prepare.max_failures=2"], "prepare.max_failures must be a share in [0, 1]; got 2"),
        (["gt.identity=per_person"], "identity"),
    ],
)
def test_wrong_calls_name_the_key(written, tmp_path, capfd, more, message):
    given = [
        word for word in words(written, tmp_path / "out") if word.split("=")[0] not in {m.split("=")[0] for m in more}
    ]
    if more == ["data=synthetic"]:
        given = [word for word in given if not word.startswith("data.root")]
    assert main([*given, *more]) == 2
    told = capfd.readouterr()
    assert message in told.out + told.err
    assert not (tmp_path / "out").exists()


def specs_of(*overrides: str) -> PrepareSpecs:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("prepare", overrides=["output=out", *overrides])
    return PrepareSpecs(**{name: instantiate(config[name], _convert_="all") for name in GROUPS})


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
    with pytest.raises(InstantiationException, match="unexpected keyword"):
        specs_of("+prepare.crop.quality=3")


def test_units_are_batches_or_whole_subjects(tmp_path):
    recordings = [Recording(f"{s}{k}", s, "N", "N", tmp_path, ()) for s in "ab" for k in range(3)]
    batches = [[r.name for r in unit.recordings] for unit in plan_units(recordings, 4, whole_subjects=False)]
    assert batches == [["a0", "a1", "a2", "b0"], ["b1", "b2"]]
    subjects = [[r.name for r in unit.recordings] for unit in plan_units(recordings, 2, whole_subjects=True)]
    assert subjects == [["a0", "a1", "a2"], ["b0", "b1", "b2"]]


def test_one_identity_per_subject_is_one(written, tmp_path):
    assert main(words(written, tmp_path / "out", "gt.identity=per_subject")) == 0
    made = load_prepared(tmp_path / "out")
    for subject in ("bs000", "bs001"):
        rows = made.parameters.identity[[s == subject for s in made.subjects]]
        assert_close(rows, rows[:1].expand_as(rows), rtol=0, atol=0)


class Several:
    """A detector that sees the face of the scan, moved, and others."""

    name = "several"
    licence = "none"

    def __init__(self, points, shifts):
        self._points, self._shifts = points, shifts
        self.seen = []

    def detect(self, image, *, path=None):
        self.seen.append(tuple(image.shape))
        return [Detection((0.0, 0.0, 9.0, 9.0), 1.0, self._points + torch.tensor(shift)) for shift in self._shifts]


@pytest.mark.parametrize("labelled", [True, False], ids=["labelled", "unlabelled"])
def test_of_several_faces_that_of_the_scan_is_taken(written, labelled):
    source = open_data_set("bosphorus")
    recording = source.list_recordings(written)[0]
    scan = source.read_recording(recording)
    if not labelled:
        scan = type(scan)(scan.surface, scan.pixels, scan.image, torch.full((66, 3), torch.nan))
    points = FileLandmarks().detect(scan.image, path=recording.image)[0].points
    near, far, farther = (3.0, 2.0), (140.0, 0.0), (-150.0, 90.0)
    found, flags = find_landmarks(Several(points, [far, near, farther]), scan, recording.image)
    corner = (found - to_paper66(points + torch.tensor(near))).mean(dim=0)  # of the part of the picture that was shown
    assert_close(found - to_paper66(points + torch.tensor(near)), corner.expand(66, 2), atol=1e-3, rtol=0)
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


def test_two_runs_do_not_share_a_folder(written, tmp_path, capfd):
    from filelock import FileLock

    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"):
        assert main(words(written, tmp_path / "out")) == 2
    assert "another run prepares this set" in capfd.readouterr().out
