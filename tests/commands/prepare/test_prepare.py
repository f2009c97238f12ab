"""`facerecon prepare` from the files alone: samples, failures with their reasons, and runs that cannot end well."""

import errno
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.commands.cli import main
from facerecon_torch.data.bosphorus.bnt import read_bnt
from facerecon_torch.data.prepared import load_prepared
from facerecon_torch.formats import checked_columns
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.images.read import read_image
from facerecon_torch.landmarks.scheme import to_paper66
from facerecon_torch.model.load import load_face_model
from facerecon_torch.runtime.sharded_job import ShardedJob
from tests.commands.prepare.bosphorus_folder import content, words, write_folder
from tests.tiny_model import tiny_topology


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("bosphorus"), subjects=2, scans=5)


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "BosphorusDB")


@pytest.fixture(scope="module")
def whole(written, tmp_path_factory):
    output = tmp_path_factory.mktemp("prepared") / "set"
    assert main(words(written, output)) == 0
    return load_prepared(output)


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


def test_reading_in_workers_and_registering_here_gives_the_same_set(whole, written, tmp_path, monkeypatch):
    """As it is done with a GPU, with the CPU in its place."""

    def apart(job, make, complete, *, finish=None, **options):
        task = make.__self__
        registrar = task.build_registrar(load_face_model(task.specs.model))
        real(job, task.read, complete, finish=registrar.make_shard, **options)

    real = ShardedJob.run
    monkeypatch.setattr(ShardedJob, "run", apart)
    before = torch.get_num_threads()
    try:
        assert main(words(written, tmp_path / "out", "runtime.threads=1")) == 0
    finally:
        torch.set_num_threads(before)
    assert content(tmp_path / "out") == content(whole.folder)


def test_some_samples_are_drawn(written, tmp_path):
    output = tmp_path / "out"
    assert main(words(written, output, "prepare.pictures=2", "data.classes=[N,YR]")) == 0
    drawn = sorted(p.name for p in (output / "pictures").iterdir())
    names = [f"bs000_N_N_0_{kind}.png" for kind in ("landmarks", "scan_fit_mesh")]
    names += [f"bs001_YR_R10_0_{kind}.png" for kind in ("landmarks", "scan_fit_mesh")]
    assert drawn == names
    pair = read_image(output / "pictures" / names[0])
    crop = read_image(output / "crops" / "bs000_N_N_0.jpg")
    assert pair.shape == (3, crop.shape[1], 2 * crop.shape[2])
    left, right = ((half - crop).abs().amax(0) > 0.3 for half in pair.chunk(2, dim=2))
    assert int(left.sum()) < int(right.sum())  # 20 points and 66
    assert int(left.sum()) > 20


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
    reasons = {told["name"]: told["reason"] for told in json.loads((output / "failures.json").read_text())["failures"]}
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
    told = capfd.readouterr().err
    assert "all 10 recordings failed, bs000_E_HAPPY_0: " in told
    assert "bs000_E_HAPPY_0.png: file: expected the .png file" in told


def test_a_full_disk_is_said_and_the_rest_follows_later(whole, written, tmp_path, monkeypatch, capfd):
    output = tmp_path / "out"
    real, calls = checked_columns.save_file, []

    def full(*given, **more):
        calls.append(given)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(checked_columns, "save_file", full)
        assert main(words(written, output)) == 2
    assert "no room is left on the disk; finished shards stay" in capfd.readouterr().err
    assert sorted(p.name for p in (output / "shards").iterdir()) == ["000000.safetensors", "description.json"]
    assert not list(output.rglob("*.part"))
    assert main(words(written, output)) == 0
    assert content(output) == content(whole.folder)


def test_a_disk_without_room_is_reported_before_the_work(written, tmp_path, monkeypatch, capfd):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert main(words(written, tmp_path / "out")) == 2
    assert "needs about 0.0 GB more; 0.0 GB are free" in capfd.readouterr().err
    assert not list((tmp_path / "out").rglob("*.safetensors"))


def test_a_folder_of_another_set_is_refused(whole, written, tmp_path, capfd):
    output = shutil.copytree(whole.folder, tmp_path / "out")
    assert main(words(written, output, "prepare.crop.format=png")) == 2
    told = capfd.readouterr().err
    assert "already holds another set: crop " in told
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


def test_one_identity_per_subject_is_one(written, tmp_path):
    assert main(words(written, tmp_path / "out", "gt.identity=per_subject")) == 0
    made = load_prepared(tmp_path / "out")
    for subject in ("bs000", "bs001"):
        rows = made.parameters.identity[[s == subject for s in made.subjects]]
        assert_close(rows, rows[:1].expand_as(rows), rtol=0, atol=0)
