"""What a run's inputs are listed from, that each is read, and that plans are streamed."""

import io
import json
import os
import re
import tarfile
import time
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from facerecon_torch.commands.infer.inputs.entry import Entry, entries_of, plan_rows, record_batch
from facerecon_torch.commands.infer.inputs.listing import InputSpec, list_entries
from facerecon_torch.commands.infer.inputs.reading import EntryReader
from facerecon_torch.commands.infer.options import InferOptions
from facerecon_torch.commands.infer.parts import read_quarantine
from facerecon_torch.commands.infer.plan import write_plan
from facerecon_torch.commands.infer.run import infer
from facerecon_torch.errors import DataFileError, ImageFileError
from facerecon_torch.images import read_pixels, save_png
from facerecon_torch.landmarks.file_landmarks import FileLandmarks
from facerecon_torch.landmarks.scheme import from_paper66


def listed(path, **more):
    return list(list_entries(InputSpec(path=str(path), **more)))


def names(path, **more):
    return [os.path.relpath(e.text, path if os.path.isdir(path) else None) for e in listed(path, **more)]


def test_a_folder_is_listed_in_natural_order_with_everything_named_like_an_image(tmp_path, caplog):
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    files = [
        "b10.JPG",
        "b2.jpg",
        "B1.png",
        "a.TIFF",
        "note.txt",
        ".hidden.png",
        "sub/c.webp",
        "x.heic",
        "d.tar",
        "e.mp4",
    ]
    for name in files:
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.png" / "in.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "elsewhere").symlink_to(tmp_path)
    here = ["a.TIFF", "B1.png", "b2.jpg", "b10.JPG", "folder.png", "gone.jpg", "loop.jpg", "pipe.png", "x.heic"]
    assert names(tmp_path) == here
    assert "2 sub-folders are not searched: recursive=true does" in caplog.text
    assert "2 tar files or videos are left out" in caplog.text
    assert "1 links to folders are not followed" in caplog.text
    assert names(tmp_path, recursive=True) == [*here, "folder.png/in.png", "sub/c.webp"]
    assert names(tmp_path, recursive=True, left_out=tmp_path / "sub") == [*here, "folder.png/in.png"]


def test_names_that_mix_digits_and_letters_at_one_place_sort(tmp_path):
    for name in ("1.png", "a.png", "²1.png", "01.png"):
        (tmp_path / name).touch()
    assert names(tmp_path)[:2] == ["01.png", "1.png"]


def test_patterns_and_lists(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    for name in ("p10.png", "p2.png", "sub/p1.png", "other.jpg"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert names("*.png") == ["p2.png", "p10.png"]
    assert names("**/*.png") == ["p2.png", "p10.png", "sub/p1.png"]
    (tmp_path / "sub" / "list.txt").write_bytes(b"p1.png\r\n../caf\xe9.png\n\n" + os.fsencode(tmp_path / "p2.png"))
    assert [e.path for e in listed(tmp_path / "sub" / "list.txt")] == [
        str(tmp_path / "sub" / "p1.png"), str(tmp_path / "sub" / "../caf\udce9.png"), str(tmp_path / "p2.png"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "nothing is at"),
        (lambda p: p.mkdir(), "holds no image"),
        (lambda p: p.with_suffix(".txt").write_text("\n"), "holds none"),
        (lambda p: p.with_suffix(".csv").write_text("a,b\n1,2\n"), "expected a column `path`"),
        (lambda p: p.with_suffix(".csv").write_text("path\n"), "has none"),
        (
            lambda p: p.with_suffix(".csv").write_text("path,box_x0\na,1\n"),
            "expected box_x0, box_y0, box_x1 and box_y1",
        ),
        (lambda p: p.with_suffix(".parquet").write_text("x"), "got a file that cannot be read"),
    ],
)
def test_inputs_that_are_none_are_refused(make, message, tmp_path):
    made = tmp_path / "x"
    make(made)
    found = [made, *tmp_path.glob("x.*")]
    with pytest.raises((ValueError, FileNotFoundError, DataFileError), match=message):
        listed(next((p for p in found if p.exists()), made))
    with pytest.raises(FileNotFoundError if not os.path.lexists(made) else ValueError):
        listed(tmp_path / "*.gone" if os.path.lexists(made) else made)


def test_manifests_name_ids_subjects_boxes_and_landmarks(tmp_path):
    rows = [{"Image_Path": "a.png", "ID": "7", "person": "p", "box": [1.0, 2.0, 3.0, 4.0], "landmarks": [[5.0, 6.0]]},
            {"Image_Path": "b.png", "ID": None, "person": None, "box": None, "landmarks": None}]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    first, second = listed(tmp_path / "m.parquet")
    assert (first.path, first.id, first.subject) == (str(tmp_path / "a.png"), "7", "p")
    assert (first.box, first.points) == ((1.0, 2.0, 3.0, 4.0), [5.0, 6.0])
    assert (second.name, second.subject, second.box, second.points) == (str(tmp_path / "b.png"), None, None, None)
    (tmp_path / "m.csv").write_text("id,path,box_x0,box_y0,box_x1,box_y1\n001,a.png,1,2,3,4\n002,b.png,,,,\n")
    first, second = listed(tmp_path / "m.csv")
    assert (first.id, first.box, second.id, second.box) == ("001", (1.0, 2.0, 3.0, 4.0), "002", None)


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [("landmarks", [[5.0, 6.0]], "a list of points [x, y] in the column landmarks; got list<"),
     ("landmarks", ["5 6"], "a list of points [x, y] in the column landmarks; got string"),
     ("box", ["1,2,3,4"], "a list of 4 numbers in the column box; got string"),
     ("box", [[["1", "2"]]], "a list of 4 numbers in the column box; got list<")],
)  # fmt: skip
def test_columns_of_other_types_are_refused_by_name(tmp_path, column, values, expected):
    pq.write_table(pa.table({"path": ["a.png"], column: values}), tmp_path / "m.parquet")
    with pytest.raises(DataFileError, match=re.escape(f"expected {expected}")):
        listed(tmp_path / "m.parquet")


def test_boxes_and_landmarks_may_all_be_missing(tmp_path):
    table = pa.table({"path": ["a.png"], "box": pa.nulls(1), "landmarks": pa.nulls(1)})
    pq.write_table(table, tmp_path / "m.parquet")
    (entry,) = listed(tmp_path / "m.parquet")
    assert (entry.box, entry.points) == (None, None)


def test_entries_travel_through_arrow():
    entries = [Entry("a\udce9\n.png", id="x", size=3, changed=4), Entry("t.tar", member="m.png", offset=512, size=9),
               Entry("v.mp4", frame=3, time=0.1),
               Entry("b", problem="no", box=(1.0, 2.0, 3.0, 4.0), points=[1.0, 2.0])]  # fmt: skip
    again = entries_of(record_batch(plan_rows(entries)), 10)
    assert [e.number for e in again] == [10, 11, 12, 13]
    for one, other in zip(entries, again):
        for name in Entry.__slots__:
            if name != "number":
                assert getattr(one, name) == getattr(other, name)


@pytest.fixture
def pictures(photographs, tmp_path):
    """Three photographs, and their landmarks [3, 68, 2]."""
    images, landmarks = photographs
    (tmp_path / "in").mkdir()
    for k in range(3):
        save_png(images[k], tmp_path / "in" / f"p{k}.png")
    return tmp_path / "in", from_paper66(landmarks[:3])


def run(source, output, outcome, detector=None, **changes):
    options = InferOptions(**{"formats": [], "progress": False, "workers": 2, **changes})
    return infer(InputSpec(path=str(source)), output, outcome.reconstructor, detector or FileLandmarks(), options)


def table(output):
    return pq.read_table(output / "parameters").to_pylist()


def test_a_tar_file_gives_the_faces_of_its_members(pictures, tmp_path, tiny_outcome):
    folder, points = pictures
    marks = tmp_path / "marks"
    marks.mkdir()
    for k in range(3):
        np.save(marks / f"p{k}.npy", points[k].numpy())
    with tarfile.open(tmp_path / "s.tar", "w") as file:
        for path in sorted(folder.iterdir()):
            file.add(path, f"deep/{path.name}")
            note = tarfile.TarInfo(f"deep/{path.stem}.cls")
            note.size = 3
            file.addfile(note, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "deep/p0.png"
        file.addfile(link)
    whole = (tmp_path / "s.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 3])
    report = run(tmp_path / "*.tar", tmp_path / "out", tiny_outcome, FileLandmarks(source=marks))
    assert report.counts.statuses["ok"] >= 3
    rows = [row for row in table(tmp_path / "out") if "s.tar" in row["path"]]
    assert [row["path"] for row in rows] == [f"{tmp_path}/s.tar/deep/p{k}.png" for k in range(3)]
    run(folder, tmp_path / "plain", tiny_outcome, FileLandmarks(source=marks))
    for row, same in zip(rows, table(tmp_path / "plain"), strict=True):
        assert row["sha256"] == same["sha256"]
        assert_close(torch.tensor(row["alpha"]), torch.tensor(same["alpha"]), rtol=1e-3, atol=1e-3)
    reasons = {row["path"]: row["reason"] for row in read_quarantine(tmp_path / "out")}
    assert "got a link or folder" in reasons[f"{tmp_path}/s.tar/link.png"]
    assert "expected an uncompressed tar file" in reasons[f"{tmp_path}/cut.tar"]


def test_landmarks_and_subjects_of_a_manifest(pictures, tmp_path, tiny_outcome):
    folder, points = pictures
    rows = [{"path": f"in/p{k}.png", "id": f"n{k}", "subject": "s", "points": points[k].tolist()} for k in range(3)]
    rows.append({"path": "in/p0.png", "id": "bad", "subject": "s", "points": [[1.0, 2.0]] * 9})
    rows.append({"path": "in/p0.png", "id": "none", "subject": None, "points": None})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    report = run(tmp_path / "m.parquet", tmp_path / "out", tiny_outcome)
    assert report.total.line() == "ok 3 + bad_landmarks 2 = 5 inputs"
    assert [(r["id"], r["subject"], r["score"]) for r in table(tmp_path / "out")] == [
        (f"n{k}", "s", 1.0) for k in range(3)
    ]
    np.save(folder / "p1.npy", points[1].numpy())
    run(folder / "p1.png", tmp_path / "one", tiny_outcome)
    assert_close(torch.tensor(table(tmp_path / "out")[1]["alpha"]), torch.tensor(table(tmp_path / "one")[0]["alpha"]),
                 rtol=1e-3, atol=1e-3)  # fmt: skip


def test_the_box_of_a_manifest_chooses_the_face(pictures, tmp_path, tiny_outcome):
    folder, points = pictures
    left, right = points[0] * 0.5, points[0] * 0.5 + 78
    np.save(folder / "p0.npy", torch.stack([left, right]).numpy())
    boxes = [[0.0, 0.0, 80.0, 80.0], [78.0, 78.0, 160.0, 160.0], [300.0, 300.0, 400.0, 400.0]]
    rows = [{"path": "in/p0.png", "id": str(k), "box": box} for k, box in enumerate(boxes)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    report = run(tmp_path / "m.parquet", tmp_path / "out", tiny_outcome)
    assert dict(report.counts.statuses) == {"ok": 2, "no_face": 1}
    means = [np.mean(np.array(row["landmarks_2d"], float), 0) for row in table(tmp_path / "out")]
    assert np.allclose(means[1] - means[0], 78, atol=0.1)


def test_frames_of_a_video_are_inputs(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(60):
            pixels = np.full((48, 64, 3), 4 * k, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    entries = listed(path)
    assert [e.frame for e in entries] == list(range(60))
    assert [e.time for e in entries] == pytest.approx([k / 10 for k in range(60)])
    assert [e.frame for e in listed(path, every=25)] == [0, 25, 50]
    reader = EntryReader(200.0)
    for k in (*range(0, 60, 7), 3, 2, 59, 0):
        content = reader(entries[k])
        assert content.data.shape == (3, 48, 64)
        assert float(content.data.float().mean()) == pytest.approx(4 * k, abs=6)
    reader.close()
    for name in ("x.mp4", "cut.avi"):
        (tmp_path / name).write_bytes(path.read_bytes()[:100])
        (entry,) = listed(tmp_path / name)
        with pytest.raises(ImageFileError, match="expected a video"):
            reader(entry)


def test_heic_is_read_where_its_package_is(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    picture = Image.fromarray(np.full((48, 64, 3), (200, 60, 20), np.uint8))
    heif.from_pillow(picture).save(tmp_path / "a.heic", quality=90)
    pixels = read_pixels(tmp_path / "a.heic")
    assert pixels.shape == (3, 48, 64)
    assert_close(pixels.float().mean((1, 2)), torch.tensor([200.0, 60.0, 20.0]), rtol=0, atol=4)
    with pytest.raises(ImageFileError, match=r"at most 0\.001 megapixels"):
        read_pixels(tmp_path / "a.heic", max_megapixels=0.001)


def planned(count, folder):
    """Seconds and peak bytes of Python objects for planning a manifest of `count` rows."""
    file = folder / f"{count}.parquet"
    with pq.ParquetWriter(file, pa.schema([("path", pa.string())])) as writer:
        for start in range(0, count, 100_000):
            stop = min(start + 100_000, count)
            writer.write_table(pa.table({"path": [f"images/{k:09d}.jpg" for k in range(start, stop)]}))
    tracemalloc.start()
    pa.default_memory_pool().release_unused()
    before, began = pa.total_allocated_bytes(), time.perf_counter()
    plan = write_plan(list_entries(InputSpec(path=str(file))), folder / f"{count}.arrow", 1000)
    seconds, peak = time.perf_counter() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert plan.inputs == count
    last = plan.entries(plan.shards - 1)[-1]
    assert (last.number, last.path) == (count - 1, str(folder / f"images/{count - 1:09d}.jpg"))
    assert pa.total_allocated_bytes() - before < 1e6
    return seconds, peak


def test_plans_are_streamed(tmp_path):
    _, few = planned(2_000, tmp_path)
    _, many = planned(8_000, tmp_path)
    assert many < 1.2 * few + 1e6


@pytest.mark.slow
def test_plans_of_millions(tmp_path):
    child = (
        "import sys, json, time\nfrom pathlib import Path\n"
        "from facerecon_torch.commands.infer.inputs.listing import InputSpec, list_entries\n"
        "from facerecon_torch.commands.infer.plan import write_plan\n"
        "began = time.perf_counter()\n"
        "plan = write_plan(list_entries(InputSpec(path=sys.argv[1])), Path(sys.argv[2]), 1000)\n"
        "status = Path('/proc/self/status').read_text()\n"  # ru_maxrss is that of the starting process, if larger
        "peak = int(status.partition('VmHWM:')[2].split()[0]) * 1024\n"
        "print(json.dumps([plan.inputs, time.perf_counter() - began, peak]))\n"
    )
    import subprocess
    import sys

    peaks = []
    for count in (1_000_000, 10_000_000):
        file = tmp_path / f"{count}.parquet"
        with pq.ParquetWriter(file, pa.schema([("path", pa.string())])) as writer:
            for start in range(0, count, 500_000):
                rows = [f"images/{k:09d}.jpg" for k in range(start, start + 500_000)]
                writer.write_table(pa.table({"path": rows}), row_group_size=50_000)
        words = [sys.executable, "-c", child, str(file), str(tmp_path / "plan")]
        inputs, seconds, peak = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
        sys.stdout.write(f"{inputs} inputs: {seconds:.1f} s, {peak / 1e6:.0f} MB\n")
        assert inputs == count
        assert seconds < 60 * count / 1e6
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 32e6
