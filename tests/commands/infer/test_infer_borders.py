"""What users' folders hold: results beside their own files, records of other runs, bad files, awkward names."""

import io
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from copy import deepcopy
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from facerecon_torch.cascade.reconstruction import KnownSize
from facerecon_torch.commands.infer.files import face_files
from facerecon_torch.commands.infer.files.names import result_names
from facerecon_torch.commands.infer.inputs.listing import InputSpec, list_entries
from facerecon_torch.commands.infer.options import InferOptions
from facerecon_torch.commands.infer.parts import read_quarantine
from facerecon_torch.commands.infer.plan import RunMismatchError
from facerecon_torch.commands.infer.run import infer
from facerecon_torch.commands.own_files import is_own
from facerecon_torch.export.parameters import face_in_document
from facerecon_torch.images import read as read_module
from facerecon_torch.images import save_png
from facerecon_torch.landmarks.file_landmarks import FileLandmarks
from facerecon_torch.landmarks.point_files import read_points
from facerecon_torch.landmarks.scheme import from_paper66


@pytest.fixture
def pictures(photographs, tmp_path):
    """A folder of three photographs with their landmarks as .npy beside them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    images, landmarks = photographs
    for k in range(3):
        add(folder, f"p{k}.png", images[k], landmarks[k])
    return folder


def add(folder, name, image, points):
    path = folder / name
    save_png(image, folder / "aside.png")
    os.replace(folder / "aside.png", path)
    with open(path.with_suffix(".npy"), "wb") as file:
        np.save(file, from_paper66(points[None])[0].numpy())
    return path


def options(**changes) -> InferOptions:
    return InferOptions(**{"formats": ["json"], "progress": False, "workers": 2, **changes})


def run(pictures, output, outcome, *, detector=None, **changes):
    return infer(
        InputSpec(path=str(pictures)), output, outcome.reconstructor, detector or FileLandmarks(), options(**changes)
    )


def table(output):
    return pq.read_table(output / "parameters").to_pylist()


def failures(output):
    return {os.path.basename(row["path"]): row["reason"] for row in read_quarantine(output)}


# Results beside files of the user


@pytest.mark.parametrize("name", ["p1.json", "p1.obj", "p1.ply", "p1.glb", "p1_overlay.jpg"])
def test_no_file_of_the_user_is_replaced(name, pictures, tmp_path, tiny_outcome):
    output = tmp_path / "out"
    output.mkdir()
    (output / name).write_text('{"points": [], "comment": "mine"}')
    formats = ["json", "obj", "ply", "glb", "overlay"]
    run(pictures, output, tiny_outcome, formats=formats)
    assert (output / name).read_text() == '{"points": [], "comment": "mine"}'
    message = f"{output / name}: expected a free name or an earlier result; got a file that this program did not write"
    assert failures(output) == {"p1.png": f"{pictures / 'p1.png'}: {message}"}
    assert [row["path"] for row in table(output)] == [str(pictures / f"p{k}.png") for k in (0, 2)]
    written = {p.name for p in output.iterdir()} - {name}
    assert not [other for other in written if other.startswith("p1")]


def test_landmarks_beside_the_results_stay(pictures, tiny_outcome):
    """output = the folder of the landmark files."""
    own = {}
    for path in pictures.glob("*.npy"):
        points = np.load(path).tolist()
        path.unlink()
        path.with_suffix(".json").write_text(json.dumps(points))
        own[path.with_suffix(".json")] = json.dumps(points)
    assert run(pictures, pictures, tiny_outcome).counts.failures == 3
    assert all(path.read_text() == text for path, text in own.items())


@pytest.mark.parametrize("name", ["parameters", "quarantine", "run.json", "plan.arrow", "progress.json"])
def test_the_names_of_a_whole_run_are_not_taken_from_the_user(name, pictures, tmp_path, tiny_outcome):
    (tmp_path / "out").mkdir()
    for content in (
        lambda path: path.write_text("[]"),
        lambda path: (path.unlink(), path.symlink_to(path.parent / "nowhere")),
    ):
        content(tmp_path / "out" / name)
        with pytest.raises(
            FileExistsError, match=f"{name}: expected a free name or (an earlier result|a folder of an earlier run)"
        ):
            run(pictures, tmp_path / "out", tiny_outcome)


def test_every_kind_of_result_bears_the_mark(pictures, tmp_path, tiny_outcome):
    formats = ["json", "obj", "ply", "glb", "overlay"]
    for _ in range(2):  # the second run replaces the files of the first
        assert not run(pictures, tmp_path / "out", tiny_outcome, formats=formats, resume=False).counts.failures
    written = sorted(p for p in (tmp_path / "out").rglob("*") if p.is_file() and not p.name.startswith("."))
    assert len(written) == 3 * 5 + 5
    assert all(is_own(path) for path in written)


@pytest.mark.parametrize("formats", [["json", "obj"], ["obj"]])
def test_a_later_run_removes_faces_that_are_gone_and_only_those(pictures, photographs, tmp_path, tiny_outcome, formats):
    points = from_paper66(photographs[1][:1])
    np.save(pictures / "p0.npy", torch.cat([points, points + 1.5]).numpy())
    output = tmp_path / "out"
    run(pictures, output, tiny_outcome, formats=[*formats, "overlay"])
    assert (output / "p0_face1.obj").is_file()
    assert (output / "p0_overlay.jpg").is_file()
    (output / "p0_face1.ply").write_text("mine")
    np.save(pictures / "p0.npy", points.numpy())
    run(pictures, output, tiny_outcome, formats=formats, resume=False)
    assert {p.name for p in output.glob("p0*")} == {"p0_face1.ply", *(f"p0.{kind}" for kind in formats)}


# Runs of something else


def test_a_run_that_is_done_stays_as_it_is(pictures, tmp_path, tiny_outcome):
    output = tmp_path / "out"
    run(pictures, output, tiny_outcome)
    before = {p: p.read_bytes() for p in output.rglob("*.parquet")}
    again = run(pictures, output, tiny_outcome)
    assert (again.skipped, again.complete) == (3, True)
    assert {p: p.read_bytes() for p in output.rglob("*.parquet")} == before


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"size": KnownSize(interpupillary_mm=63)}, "size"),
        ({"faces": "largest"}, "faces"),
        ({"formats": ["json", "obj"]}, "formats"),
        ({"shard_size": 2}, "shard_size"),
    ],
    ids=str,
)
def test_a_run_does_not_mix_options(changes, name, pictures, tmp_path, tiny_outcome):
    run(pictures, tmp_path / "out", tiny_outcome)
    message = rf"holds a run with other settings \({name}: .*; give another output, or resume=false"
    with pytest.raises(RunMismatchError, match=message):
        run(pictures, tmp_path / "out", tiny_outcome, **changes)
    assert run(pictures, tmp_path / "out", tiny_outcome, resume=False, **changes).skipped == 0
    assert run(pictures, tmp_path / "out", tiny_outcome, **changes).skipped == 3


def test_a_run_does_not_mix_cascades_pictures_or_landmarks(pictures, tmp_path, tiny_outcome, photographs):
    output = tmp_path / "out"
    run(pictures, output, tiny_outcome)
    other = Mock(reconstructor=deepcopy(tiny_outcome.reconstructor))
    other.reconstructor.stages[0].bias.mul_(1.01)
    with pytest.raises(RunMismatchError, match=r"other settings \(cascade: "):
        run(pictures, output, other)
    with pytest.raises(RunMismatchError, match=r"other settings \(detector: "):
        run(pictures, output, tiny_outcome, detector=FileLandmarks(origin=1))
    save_png(photographs[0][3], pictures / "p1.png")
    with pytest.raises(RunMismatchError, match=r"the first is input 1, .*p1\.png: new or changed since"):
        run(pictures, output, tiny_outcome)
    assert run(pictures, output, tiny_outcome, resume=False).skipped == 0
    np.save(pictures / "p2.npy", np.load(pictures / "p2.npy").astype(np.float64) + 0.5)
    with pytest.raises(RunMismatchError, match="inputs whose landmark files have changed since"):
        run(pictures, output, tiny_outcome)
    (pictures / "p9.png").write_bytes((pictures / "p1.png").read_bytes())
    with pytest.raises(RunMismatchError, match=r"other inputs \(3 then, 4 now\)"):
        run(pictures, output, tiny_outcome)


@pytest.mark.parametrize("kind", ["parameters", "quarantine"])
@pytest.mark.parametrize("damage", ["gone", "rows"])
def test_a_damaged_part_is_made_again(kind, damage, pictures, tmp_path, tiny_outcome):
    output = tmp_path / "out"
    (pictures / "p1.png").write_text("no picture")
    run(pictures, output, tiny_outcome)
    part = output / kind / "part-00000.parquet"
    whole = part.read_bytes()
    part.unlink() if damage == "gone" else pq.write_table(pq.read_table(part)[:0], part)
    assert run(pictures, output, tiny_outcome).skipped == 0
    assert part.read_bytes() == whole


def test_a_part_of_somebody_else_is_not_replaced(pictures, tmp_path, tiny_outcome):
    part = tmp_path / "out" / "parameters" / "part-00000.parquet"
    part.parent.mkdir(parents=True)
    part.write_text("mine")
    with pytest.raises(FileExistsError, match=r"part-00000\.parquet: expected a free name or an earlier result"):
        run(pictures, tmp_path / "out", tiny_outcome)
    assert part.read_text() == "mine"


# Names


def test_names_are_distinct_and_leave_those_of_the_run_free():
    names = [
        "a.jpg", "a.png", "a.jpeg", "a_jpg.gif", "a_png_face2.gif", "b.png", "b_face1.png", "parameters.png",
        "run.jpg", "c.jpg", "C.png", "d.tar.png", "\udce9.jpg", "ä" * 120 + ".jpg", "ä" * 120 + "b.jpg",
    ]  # fmt: skip
    made = result_names({Path(name): Path(name) for name in names})
    plain = [re.sub(r"_face\d+$", "", name).casefold() for name in made.values()]
    assert len(set(plain)) == len(names) == len(made)
    assert not {"parameters", "run"} & set(plain)
    assert max(len(os.fsencode(name)) for name in made.values()) <= 200
    assert made[Path("a.jpeg")] == "a_jpeg"
    assert made[Path("d.tar.png")] == "d.tar"
    assert made == result_names({Path(name): Path(name) for name in names})
    same = result_names({0: Path("x/p.png"), 1: Path("y/p.png"), 2: Path("y/p.png")})
    assert len(set(same.values())) == 3


def test_three_pictures_that_differ_in_their_suffix_alone(pictures, photographs, tmp_path, tiny_outcome):
    for k, name in enumerate(("q.png", "q.jpg", "q.bmp", "q_png.png")):
        add(pictures, name, photographs[0][k], photographs[1][k])
    report = run(pictures, tmp_path / "out", tiny_outcome)
    assert dict(report.counts.statuses) == {"ok": 7}
    assert len(list((tmp_path / "out").glob("q*.json"))) == 4


# One picture never ends a run


def _bomb(path: Path, width: int, height: int) -> None:
    """A PNG that claims a size, without pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\r" + chunk + b"\0\0\0\0IDAT" + bytes(4))


def _npy(path: Path, shape: object) -> None:
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode())


BAD_PICTURES = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a picture"),
    "zeros": lambda path: path.write_bytes(bytes(1000)),
    "postscript": lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"),
    "photoshop": lambda path: path.write_bytes(b"8BPS\0\1" + bytes(60)),
    "heic": lambda path: path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(40)),
    "pdf": lambda path: path.write_bytes(b"%PDF-1.4\n" + bytes(60)),
    "svg": lambda path: path.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "bomb": lambda path: _bomb(path, 60_000, 60_000),
    "negative": lambda path: _bomb(path, 2**31, 2**31),
    "no pixels": lambda path: _bomb(path, 40, 40),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1500]),
    "head": lambda path: path.write_bytes(path.read_bytes()[:20]),
    "flipped": lambda path: path.write_bytes(path.read_bytes()[:60] + bytes(60) + path.read_bytes()[120:]),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "link": lambda path: (path.unlink(), path.symlink_to(path.with_name("nowhere"))),
    "loop": lambda path: (path.unlink(), path.symlink_to(path)),
    "device": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
    "sparse": lambda path: os.truncate(path, 2**40),
    "float": lambda path: Image.fromarray(np.full((60, 60), 200.0, np.float32)).save(path, "TIFF"),
    "one pixel wide": lambda path: Image.new("RGB", (1, 1)).save(path, "PNG"),
}
BAD_LANDMARKS = {
    "none": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "terabytes": lambda path: _npy(path, (10**12, 68, 2)),
    "negative": lambda path: _npy(path, (-68, 2)),
    "no shape": lambda path: _npy(path, "(((("),
    "no dtype": lambda path: path.write_bytes(path.read_bytes().replace(b"<f4", b"<z9")),
    "object": lambda path: np.save(path, np.array([{}]), allow_pickle=True),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"123"),
    "archive": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(40)),
    "nan": lambda path: np.save(path, np.full((68, 2), np.nan)),
    "infinite": lambda path: np.save(path, np.full((68, 2), np.inf)),
    "huge": lambda path: np.save(path, np.arange(136.0).reshape(68, 2) * 1e300),
    "large": lambda path: np.save(path, np.arange(136.0).reshape(68, 2) ** 2 * 1e15),
    "one point": lambda path: np.save(path, np.full((68, 2), 30.0)),
    "line": lambda path: np.save(path, np.stack([np.arange(68.0), np.full(68, 20.0)], 1)),
    "shares": lambda path: np.save(path, np.load(path) / 1000),
    "outside": lambda path: np.save(path, np.load(path) + 5000),
    "text": lambda path: np.save(path, np.full((68, 2), "1")),
    "complex": lambda path: np.save(path, np.full((68, 2), 1j)),
    "three": lambda path: np.save(path, np.zeros((68, 3))),
    "few": lambda path: np.save(path, np.zeros((51, 2))),
    "no faces": lambda path: np.save(path, np.zeros((0, 68, 2))),
    "sparse": lambda path: os.truncate(path, 2**40),
    "deep json": lambda path: _other(path, ".json", "[" * 10_000 + "]" * 10_000),
    "open json": lambda path: _other(path, ".json", '{"points": ' * 5000),
    "cut json": lambda path: _other(path, ".json", '{"points": [[1.0, 2.0'),
    "digits": lambda path: _other(path, ".json", "1" * 5000),
    "digit point": lambda path: _other(path, ".json", json.dumps([[10**400, 1]] * 68)),
    "word": lambda path: _other(path, ".json", json.dumps([["1", "2"]] * 68)),
    "ragged": lambda path: _other(path, ".json", json.dumps([[1.0, 2.0]] * 67 + [[1.0]])),
    "two blocks": lambda path: _other(path, ".pts", ("{\n" + "1 2\n3 5\n" * 34 + "}\n") * 2),
    "n_points": lambda path: _other(path, ".pts", f"n_points: {'9' * 5000}\n{{\n" + "1 2\n" * 68 + "}\n"),
    "utf-16": lambda path: _other(path, ".pts", b"\xff\xfe{\0"),
    "foreign json": lambda path: _other(path, ".json", '{"format": "facerecon-face", "landmarks_2d": 3}'),
}
BAD_OUTPUTS = {
    "folder": lambda path: path.mkdir(),
    "pipe": lambda path: os.mkfifo(path),
    "own": lambda path: path.write_text("mine"),
    "link": lambda path: path.symlink_to(path.with_name("nowhere")),
}
AWKWARD = [
    "a b,c=d.png", "[1] {x} ${HOME}.png", "'quoted'.png", "ü\u0301🙂.png", "n" * 205 + ".png", "n" * 251 + ".png",
    "ä" * 125 + ".png", "new\nline.png", "-dash.png", "#.png", "%41.png", "a..b.png", "CON.png",
]  # fmt: skip


def _other(path: Path, suffix: str, content: str | bytes) -> None:
    path.unlink()
    path.with_suffix(suffix).write_bytes(content if isinstance(content, bytes) else content.encode())


def _zoo(folder: Path, output: Path, photographs, good: int) -> tuple[list[str], list[str]]:
    """A folder of good pictures, awkward names and every bad one; the names of those that work and do not."""
    images, landmarks = photographs
    folder.mkdir()
    output.mkdir()
    works = [f"good{k}.png" for k in range(good)] + AWKWARD + [os.fsdecode(b"caf\xe9.png")]
    for k, name in enumerate(works):
        add(folder, name, images[k % len(images)], landmarks[k % len(landmarks)])
    fails = []
    for kind, (damages, place) in {
        "picture": (BAD_PICTURES, lambda path: path),
        "landmarks": (BAD_LANDMARKS, lambda path: path.with_suffix(".npy")),
        "output": (BAD_OUTPUTS, lambda path: output / f"{path.stem}.json"),
    }.items():
        for name, damage in damages.items():
            path = add(folder, f"bad {kind} {name}.png", images[0], landmarks[0])
            damage(place(path))
            fails.append(path.name)
    return works, fails


def _check_zoo(tmp_path, photographs, outcome, good, **changes):
    folder, output = tmp_path / "photos", tmp_path / "out"
    works, fails = _zoo(folder, output, photographs, good)
    report = run(folder, output, outcome, **changes)
    assert set(failures(output)) == set(fails)
    assert (report.counts.statuses["ok"], report.faces) == (len(works), len(works))
    assert (report.counts.inputs, report.total) == (len(works) + len(fails), report.counts)
    order = [e.text for e in list_entries(InputSpec(path=str(folder))) if os.path.basename(e.text) in set(fails)]
    assert [row["path"] for row in read_quarantine(output)] == order
    for name, reason in failures(output).items():
        assert name in reason
        assert reason.isprintable()
        assert len(reason) < 1000
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in works:
        for file in (folder / name, (folder / name).with_suffix(".npy")):
            os.link(file, alone / file.name)
    assert run(alone, tmp_path / "out alone", outcome, **changes).counts.failures == 0
    rows = {os.path.basename(row.pop("path")): row for row in table(output)}
    others = {os.path.basename(row.pop("path")): row for row in table(tmp_path / "out alone")}
    assert len(rows) == len(works)
    for name, row in others.items():
        for key in ("alpha", "beta", "projected_2d"):
            assert np.allclose(rows[name][key], row[key], rtol=0, atol=1e-4)
    assert not list(output.rglob(".*.part"))
    return fails


def test_a_folder_with_every_bad_file_gives_what_it_gives_without_them(tmp_path, photographs, tiny_outcome):
    assert len(_check_zoo(tmp_path, photographs, tiny_outcome, 3)) >= 60


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["throughput", "latency"])
def test_200_photographs_with_every_bad_file(mode, tmp_path, photographs, tiny_outcome):
    formats = ["json", "obj", "ply", "glb", "overlay"]
    _check_zoo(tmp_path, photographs, tiny_outcome, 200 - len(AWKWARD) - 1, mode=mode, formats=formats)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_picture_that_does_not_fit_the_memory_fails_alone(error, pictures, tmp_path, tiny_outcome, monkeypatch):
    real = read_module._values

    def small_only(image):
        if image.size == (50, 40):
            raise error
        return real(image)

    Image.new("RGB", (50, 40)).save(pictures / "p1.png")
    monkeypatch.setattr(read_module, "_values", small_only)
    assert run(pictures, tmp_path / "out", tiny_outcome).faces == 2
    assert "50 x 40 pixels, for which the memory is too small" in failures(tmp_path / "out")["p1.png"]


@pytest.mark.parametrize(
    "error", [RuntimeError("broken"), MemoryError(), ValueError("no"), KeyError("x"), RecursionError()]
)
def test_a_detector_that_fails_on_one_picture(error, pictures, tmp_path, tiny_outcome):
    class Fails:
        name, licence, convention = "fails", "none", "ibug"

        def detect(self, images, *, paths=None):
            if "p1.png" in [path.name for path in paths]:
                raise error
            return FileLandmarks().detect(images, paths=paths)

    assert run(pictures, tmp_path / "out", tiny_outcome, detector=Fails()).faces == 2
    assert set(failures(tmp_path / "out")) == {"p1.png"}


def test_a_full_disk_stops_the_run(pictures, tmp_path, tiny_outcome, monkeypatch):
    full = Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr(face_files, "save_parameters_json", full)
    message = "No space left on device; 0 of 3 inputs are done; the same command goes on behind them"
    with pytest.raises(OSError, match=message):
        run(pictures, tmp_path / "out", tiny_outcome)
    monkeypatch.undo()
    assert run(pictures, tmp_path / "out", tiny_outcome).faces == 3


def test_large_pictures_wait_for_each_other(pictures, tmp_path, tiny_outcome):
    """What is queued for writing is bounded by the bytes of the pictures too."""
    assert run(pictures, tmp_path / "out", tiny_outcome, batch=1, ahead_mb=0.001).faces == 3


def test_the_bound_on_pixels_is_an_option(pictures, tmp_path, tiny_outcome):
    assert run(pictures, tmp_path / "out", tiny_outcome, max_megapixels=0.01).counts.failures == 3
    assert "at most 0.01 megapixels (images.max_megapixels)" in failures(tmp_path / "out")["p0.png"]
    for wrong in (0, -1, float("nan"), float("inf"), "200", True):
        with pytest.raises((ValueError, TypeError)):
            options(max_megapixels=wrong)


def test_a_record_is_read_back_as_it_was_written(pictures, tmp_path, tiny_outcome):
    run(pictures, tmp_path / "out", tiny_outcome)
    content = json.loads((tmp_path / "out" / "p0.json").read_text())
    assert [content[name] for name in ("format", "version", "faces", "face")] == ["facerecon-face", 4, 1, 0]
    assert set(content["made_from"]) == {"settings", "image", "landmarks"}
    face = face_in_document(content)
    assert face.parameters.identity.tolist() == content["alpha"]
    assert face.landmarks_3d.tolist() == content["landmarks_3d"]
    assert face.camera.rotation.flatten().tolist() == content["camera"]["rotation"]


def _peak(path: Path, output: Path) -> tuple[int, int]:
    """Exit status and largest resident size, bytes, of `facerecon infer` with default options and given landmarks."""
    words = [f"input={path}", f"output={output}", "landmarks=file", "runtime.progress=false"]
    child = subprocess.Popen([sys.executable, "-m", "facerecon_torch", "infer", *words])
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, usage.ru_maxrss * 1024


@pytest.mark.slow
def test_large_pictures_need_little_memory(tmp_path):
    if psutil.virtual_memory().available < 6e9:
        pytest.skip("needs 6 GB of free memory")
    data = pytest.importorskip("skimage.data")
    stored = Path(__file__).parents[2] / "landmarks" / "astronaut.pts"
    points = read_points(stored)[0]
    Image.fromarray(data.astronaut()).save(tmp_path / "small.png")
    np.save(tmp_path / "small.npy", points)
    Image.new("RGB", (13304, 13304), (90, 120, 150)).save(tmp_path / "large.png")
    np.save(tmp_path / "large.npy", (points + 0.5) * 26 - 0.5)
    assert (tmp_path / "large.png").stat().st_size < 700_000
    stream = io.BytesIO()
    Image.fromarray(data.astronaut()).resize((640, 640)).save(stream, "JPEG", quality=20)
    content = bytearray(stream.getvalue())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 7] = struct.pack(">H", 60_000)
    (tmp_path / "tall.jpg").write_bytes(content[:18_000])
    np.save(tmp_path / "tall.npy", points)
    status, ordinary = _peak(tmp_path / "small.png", tmp_path / "small")
    assert status == 0
    for name, expected in (("large.png", 0), ("tall.jpg", 1)):
        status, peak = _peak(tmp_path / name, tmp_path / name.replace(".", "_"))
        assert status == expected
        assert peak - ordinary < 2e9, f"{name}: {peak / 1e9:.2f} GB, an ordinary picture {ordinary / 1e9:.2f} GB"
