"""Recordings of Bosphorus: what is listed, what is read, and what is refused."""

import shutil

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.data.bosphorus import recordings as bosphorus
from facerecon_torch.data.bosphorus.landmarks import IBUG_OF_NAME, NamedLandmarks, read_landmarks, write_landmarks
from facerecon_torch.data.recordings import DATA_SETS, RecordedScan, Recording, choose_kinds, open_data_set
from facerecon_torch.errors import DataFileError, ImageFileError
from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER
from facerecon_torch.structures import Mesh
from tests.commands.prepare.bosphorus_folder import write_folder


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("bosphorus"), subjects=2, scans=5)


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "BosphorusDB")


def named(recordings, name):
    return next(recording for recording in recordings if recording.name == name)


def test_every_scan_is_listed_by_name(folder):
    found = bosphorus.list_recordings(folder)
    assert [recording.name for recording in found] == sorted(recording.name for recording in found)
    assert len(found) == 10
    first = named(found, "bs001_E_HAPPY_0")
    assert (first.subject, first.kind, first.code) == ("bs001", "E", "HAPPY")
    assert first.image == folder / "bs001" / "bs001_E_HAPPY_0.png"


def test_the_folder_above_will_do_too(folder):
    assert bosphorus.list_recordings(folder.parent) == bosphorus.list_recordings(folder)


def test_a_scan_is_read_with_its_landmarks_by_name(folder):
    recording = named(bosphorus.list_recordings(folder), "bs000_N_N_0")
    scan = bosphorus.read_recording(recording)
    marks = read_landmarks(folder / "bs000" / "bs000_N_N_0.lm3")
    places = {ibug: place for place, ibug in enumerate(IBUG_OF_PAPER)}
    for name, point in zip(marks.names, marks.points):
        assert scan.labelled[places[IBUG_OF_NAME[name]]].equal(point), name
    assert int(torch.isfinite(scan.labelled).all(dim=-1).sum()) == len(IBUG_OF_NAME) == 20
    flat = read_landmarks(folder / "bs000" / "bs000_N_N_0.lm2")
    order = [places[IBUG_OF_NAME[name]] for name in flat.names]
    # the nearest cell of a grid of 2.5 mm at 1.2 px a mm
    assert_close(scan.labelled_pixels[order], flat.points, atol=2.5, rtol=0)
    assert scan.points.shape == (*scan.point_pixels.shape[:-1], 3)


def test_points_that_are_left_out_of_a_file_are_nan(folder):
    file = folder / "bs000" / "bs000_N_N_0.lm3"
    marks = read_landmarks(file)
    write_landmarks(NamedLandmarks(marks.names[:7], marks.points[:7]), file)
    scan = bosphorus.read_recording(named(bosphorus.list_recordings(folder), "bs000_N_N_0"))
    assert int(torch.isfinite(scan.labelled).all(dim=-1).sum()) == 7
    assert torch.isfinite(scan.labelled_pixels).all(dim=-1).equal(torch.isfinite(scan.labelled).all(dim=-1))


@pytest.mark.parametrize("suffix", [".bnt", ".lm3", ".png"])
def test_a_missing_partner_is_listed_and_named_on_reading(folder, suffix):
    missing = folder / "bs001" / f"bs001_LFAU_12_0{suffix}"
    missing.unlink()
    found = bosphorus.list_recordings(folder)
    assert len(found) == 10
    with pytest.raises(DataFileError, match=rf"{missing.name}: file: expected .* got only bs001_LFAU_12_0"):
        bosphorus.read_recording(named(found, "bs001_LFAU_12_0"))


def test_a_damaged_picture_is_named(folder):
    (folder / "bs000" / "bs000_N_N_0.png").write_bytes(b"no picture")
    with pytest.raises(ImageFileError, match=r"bs000_N_N_0\.png"):
        bosphorus.read_recording(named(bosphorus.list_recordings(folder), "bs000_N_N_0"))


def test_a_subject_with_two_folders_is_refused(folder):
    shutil.copytree(folder / "bs001", folder / "more" / "bs001")
    with pytest.raises(DataFileError, match=r"subject: expected one folder for every subject; got another one"):
        bosphorus.list_recordings(folder)


@pytest.mark.parametrize("make", [True, False], ids=["empty", "missing"])
def test_a_wrong_folder_says_what_was_looked_for_and_found(tmp_path, make):
    folder = tmp_path / "wrong"
    if make:
        (folder / "scans").mkdir(parents=True)
    with pytest.raises(DataFileError, match=r"folders bs000, bs001, .* got ('scans'|nothing)"):
        bosphorus.list_recordings(folder)


def test_other_files_beside_the_scans_are_no_recordings(folder):
    for name in ("notes.png", ".bs000_N_N_0.png", "bs001_N_N_7.lm3", "bs000_XX_N_0.png"):
        (folder / "bs000" / name).write_bytes(b"")
    assert len(bosphorus.list_recordings(folder)) == 10


def test_classes_are_chosen_and_ignored_scans_left_out(folder):
    for suffix in (".bnt", ".lm3", ".png"):
        shutil.copy(folder / "bs000" / f"bs000_N_N_0{suffix}", folder / "bs000" / f"bs000_IGN_x_0{suffix}")
    found = bosphorus.list_recordings(folder)
    assert len(found) == 11
    assert len(choose_kinds(found, bosphorus, None)) == 10
    assert {recording.kind for recording in choose_kinds(found, bosphorus, ["E", "YR"])} == {"E", "YR"}
    with pytest.raises(ValueError, match=r"classes must be among N, E, .* got SMILE"):
        choose_kinds(found, bosphorus, ["E", "SMILE"])
    with pytest.raises(ValueError, match=r"of the classes CR; got only E, IGN"):
        choose_kinds(found, bosphorus, ["CR"])


@pytest.mark.parametrize("name", DATA_SETS)
def test_every_data_set_has_the_same_two_functions(name, tmp_path):
    source = open_data_set(name)
    assert set(source.DEFAULT_KINDS) <= set(source.KINDS)
    with pytest.raises(DataFileError, match=str(tmp_path)):
        source.list_recordings(tmp_path)


def test_an_unknown_data_set_is_refused():
    with pytest.raises(ValueError, match="one of bosphorus, facewarehouse, frgc; got 'lfw'"):
        open_data_set("lfw")


@pytest.mark.parametrize("name", ["", ".hidden", "a/b"])
def test_a_name_must_be_fit_for_a_file(name, tmp_path):
    with pytest.raises(ValueError, match="fit to name a file"):
        Recording(name, "a", "N", "N", tmp_path, ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixels": torch.zeros(4, 2)}, r"pixels must have the shape \(3, 2\); got \(4, 2\)"),
        ({"labelled": torch.zeros(68, 3)}, r"labelled must have the shape \(66, 3\); got \(68, 3\)"),
        ({"image": torch.zeros(1, 4, 4)}, r"image must have the shape \(3, H, W\); got \(1, 4, 4\)"),
        (
            {"surface": Mesh(vertices=torch.full((3, 3), torch.nan), triangles=torch.tensor([[0, 1, 2]]))},
            "vertices must be finite",
        ),
    ],
)
def test_a_scan_whose_parts_do_not_fit_is_refused(change, message):
    mesh = Mesh(vertices=torch.zeros(3, 3), triangles=torch.tensor([[0, 1, 2]]))
    good = {"surface": mesh, "pixels": torch.zeros(3, 2), "image": torch.zeros(3, 4, 4), "labelled": torch.zeros(66, 3)}
    RecordedScan(**good)
    with pytest.raises(ValueError, match=message):
        RecordedScan(**{**good, **change})
