"""Every layout of landmark files, and every way in which one can be wrong."""

import json
import os
import pickle
import re
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.errors import LandmarkFileError
from facerecon_torch.export.parameters import save_parameters_json
from facerecon_torch.landmarks import LandmarkDetector, build_detector, from_paper66, to_paper66
from tests.export.fitted_faces import drawn_faces

IMAGE = torch.zeros(3, 120, 100)


@pytest.fixture
def points() -> torch.Tensor:
    return torch.rand(68, 2, generator=torch.Generator().manual_seed(0)) * 80 + 10


def _write_pts(file: Path, points: torch.Tensor, count: int | None = None) -> None:
    lines = "\n".join(f"{x:.6f} {y:.6f}" for x, y in (points + 1).tolist())
    file.write_text(f"version: 1\nn_points:  {count or len(points)}\n{{\n{lines}\n}}\n")


def _write_table(file: Path, images: list[str], faces: torch.Tensor, under: str = "") -> None:
    columns: dict[str, object] = {"image": images}
    for i in range(faces.shape[1]):
        columns[f"x{under}{i}"], columns[f"y{under}{i}"] = faces[:, i, 0].tolist(), faces[:, i, 1].tolist()
    table = pa.table(columns)
    (pa.csv.write_csv if file.suffix == ".csv" else pa.parquet.write_table)(table, file)


def _detect(picture: Path, **options: object) -> list[torch.Tensor]:
    return [face.points.float() for face in build_detector("file", **options).detect([IMAGE], paths=[picture])[0]]


def test_pts_counts_from_one_and_other_files_from_zero(points: torch.Tensor, tmp_path: Path) -> None:
    _write_pts(tmp_path / "a.pts", points)
    np.save(tmp_path / "b.npy", points.numpy())
    (tmp_path / "c.json").write_text(json.dumps(points.tolist()))
    _write_table(tmp_path / "d.csv", ["d.jpg"], points[None])
    sources = {"a": {}, "b": {}, "c": {}, "d": {"source": tmp_path / "d.csv"}}
    for name, options in sources.items():
        picture, own = tmp_path / f"{name}.jpg", int(name == "a")
        assert_close(_detect(picture, **options)[0], points, atol=1e-5, rtol=0)
        for origin in (0, 1):
            (shifted,) = _detect(picture, origin=origin, **options)
            assert_close(shifted, points + own - origin, atol=1e-5, rtol=0)


def test_pts_with_crlf_and_byte_order_mark(points: torch.Tensor, tmp_path: Path) -> None:
    _write_pts(tmp_path / "a.pts", points)
    text = (tmp_path / "a.pts").read_text().replace("\n", "\r\n")
    (tmp_path / "a.pts").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert_close(_detect(tmp_path / "a.jpg")[0], points, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", ["list", "points", "landmarks", "landmarks_2d", "faces", "paper", "two faces"])
def test_json_layouts(layout: str, points: torch.Tensor, tmp_path: Path) -> None:
    rows = points.tolist()
    content = {
        "list": rows,
        "paper": to_paper66(points).tolist(),
        "two faces": [rows, rows],
        "faces": {"faces": [{"landmarks_2d": rows, "identity": [0.0]}, {"landmarks_2d": rows}]},
    }.get(layout, {layout: rows, "comment": "x"})
    (tmp_path / "a.json").write_text(json.dumps(content))
    faces = _detect(tmp_path / "a.jpg")
    assert len(faces) == (2 if layout in ("faces", "two faces") else 1)
    for face in faces:
        assert_close(face, from_paper66(to_paper66(points)) if layout == "paper" else points)


def test_the_parameters_of_an_earlier_run(points: torch.Tensor, tmp_path: Path) -> None:
    face = replace(drawn_faces(1, 0, torch.Generator().manual_seed(0)), landmarks_2d=to_paper66(points)[None])[0]
    save_parameters_json(face, tmp_path / "a.json", image="a.jpg", number=0, expression_names=())
    assert_close(to_paper66(_detect(tmp_path / "a.jpg")[0]), to_paper66(points))


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64])
@pytest.mark.parametrize("shape", ["68", "66", "2x68"])
def test_npy(kind: type, shape: str, points: torch.Tensor, tmp_path: Path) -> None:
    values = {"68": points, "66": to_paper66(points), "2x68": torch.stack([points, points])}[shape].numpy().astype(kind)
    np.save(tmp_path / "a.npy", values)
    faces = _detect(tmp_path / "a.jpg")
    assert len(faces) == (2 if shape == "2x68" else 1)
    assert_close(to_paper66(faces[0]).numpy(), to_paper66(points).numpy().astype(kind).astype(np.float32))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("under", ["", "_"])
@pytest.mark.parametrize("count", [68, 66])
def test_table(suffix: str, under: str, count: int, points: torch.Tensor, tmp_path: Path) -> None:
    faces = torch.stack([points, points / 2, points / 3])
    written = faces if count == 68 else to_paper66(faces)
    file = tmp_path / f"all{suffix}"
    _write_table(file, ["0001.jpg", "b, c=d.png", "0001.jpg"], written, under)
    expected = faces if count == 68 else from_paper66(written)
    found = _detect(tmp_path / "0001.jpg", source=file)
    assert len(found) == 2
    assert_close(sorted(f[0, 0].item() for f in found), sorted([expected[0, 0, 0].item(), expected[2, 0, 0].item()]))
    assert_close(_detect(tmp_path / "b, c=d.png", source=file)[0], expected[1])
    with pytest.raises(LandmarkFileError, match=r"expected a row for the image .*other\.jpg; got none"):
        _detect(tmp_path / "other.jpg", source=file)


def test_table_names_may_be_paths_or_stems(points: torch.Tensor, tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    images = ["a/x.jpg", "b\\x.jpg", "0007", str(tmp_path / "abs.png")]
    _write_table(file, images, torch.stack([points / k for k in (1, 2, 3, 4)]))
    for picture, k in (("a/x.jpg", 1), ("b/x.jpg", 2), ("0007.png", 3), ("abs.png", 4)):
        assert_close(_detect(tmp_path / picture, source=file)[0], points / k)
    with pytest.raises(LandmarkFileError, match="got none"):
        _detect(tmp_path / "c" / "x.jpg", source=file)


def test_an_empty_cell_is_an_error_of_its_own_picture(points: torch.Tensor, tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    _write_table(file, ["good.jpg", "bad.jpg"], torch.stack([points, points]))
    lines = file.read_text().splitlines()
    lines[2] = lines[2].rsplit(",", 1)[0] + ","
    file.write_text("\n".join(lines))
    assert_close(_detect(tmp_path / "good.jpg", source=file)[0], points)
    with pytest.raises(LandmarkFileError, match=r"t\.csv, image bad\.jpg: expected finite points; got 1 "):
        _detect(tmp_path / "bad.jpg", source=file)


def test_a_folder_of_landmarks_and_a_single_file(points: torch.Tensor, tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir()
    _write_pts(tmp_path / "marks" / "a.pts", points)
    assert_close(_detect(tmp_path / "a.jpg", source=tmp_path / "marks")[0], points, atol=1e-5, rtol=0)
    single = build_detector("file", source=str(tmp_path / "marks" / "a.pts"))
    for _ in range(2):
        assert_close(single.detect([IMAGE], paths=[tmp_path / "z.jpg"])[0][0].points.float(), points, atol=1e-5, rtol=0)
    with pytest.raises(LandmarkFileError, match="expected one picture for one landmark file"):
        single.detect([IMAGE], paths=[tmp_path / "y.jpg"])[0]


def test_small_and_further_faces_can_be_left_out(points: torch.Tensor, tmp_path: Path) -> None:
    small = points / 4 + 30
    np.save(tmp_path / "a.npy", torch.stack([small, points]).numpy())
    picture = tmp_path / "a.jpg"
    assert len(_detect(picture)) == 2
    for options in ({"max_faces": 1}, {"min_face": 0.5}):
        (found,) = _detect(picture, **options)
        assert torch.equal(found, points)
    assert _detect(picture, min_face=0.9) == []


def test_points_have_a_precision_of_their_own(
    points: torch.Tensor, tmp_path: Path, device: torch.device, dtype: torch.dtype
) -> None:
    np.save(tmp_path / "a.npy", points.numpy())
    detector = pickle.loads(pickle.dumps(build_detector("file")))
    assert isinstance(detector, LandmarkDetector)
    (face,) = detector.detect([IMAGE.to(device, dtype)], paths=[tmp_path / "a.png"])[0]
    assert (face.points.device.type, face.points.dtype) == ("cpu", torch.float64)
    assert torch.equal(face.points, points.double())
    assert face.score == 1
    x0, y0 = points.amin(dim=0).tolist()
    assert face.box[:2] == pytest.approx((x0, y0))


def _bad(kind: str, points: torch.Tensor, folder: Path) -> None:
    rows = points.tolist()
    if kind == "count pts":
        _write_pts(folder / "a.pts", points[:50])
    elif kind == "declared":
        _write_pts(folder / "a.pts", points[:67], count=68)
    elif kind == "no braces":
        (folder / "a.pts").write_text("1 2\n3 4\n")
    elif kind == "words":
        (folder / "a.pts").write_text("version: 1\n{\n1 two\n}\n")
    elif kind == "binary":
        (folder / "a.pts").write_bytes(b"\xff\xfe\x00{}")
    elif kind == "count json":
        (folder / "a.json").write_text(json.dumps(rows[:5]))
    elif kind == "ragged":
        (folder / "a.json").write_text(json.dumps([*rows[:67], [1.0]]))
    elif kind == "keys":
        (folder / "a.json").write_text(json.dumps({"shape": rows}))
    elif kind == "not json":
        (folder / "a.json").write_text('{"points": [')
    elif kind == "null":
        (folder / "a.json").write_text(json.dumps([[None, 1.0], *rows[1:]]))
    elif kind == "nan":
        np.save(folder / "a.npy", np.where(np.arange(68)[:, None] == 3, np.nan, points.numpy()))
    elif kind == "infinite":
        np.save(folder / "a.npy", np.where(np.arange(68)[:, None] < 2, np.inf, points.numpy()))
    elif kind == "three columns":
        np.save(folder / "a.npy", np.zeros((68, 3)))
    elif kind == "pickled":
        np.save(folder / "a.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
    elif kind == "empty npy":
        (folder / "a.npy").write_bytes(b"")
    elif kind == "two blocks":
        _write_pts(folder / "a.pts", points)
        text = (folder / "a.pts").read_text()
        (folder / "a.pts").write_text(text + text.replace("68", "67", 1))
    elif kind == "open block":
        _write_pts(folder / "a.pts", points)
        (folder / "a.pts").write_text((folder / "a.pts").read_text() + "{\n1 2\n")
    elif kind == "n_points of 5,000 digits":
        _write_pts(folder / "a.pts", points, count=10**4200)
    elif kind == "deep":
        (folder / "a.json").write_text("[" * 10_000 + "]" * 10_000)
    elif kind == "deep object":
        (folder / "a.json").write_text('{"points":' * 10_000)
    elif kind == "5,000 digits":
        (folder / "a.json").write_text(json.dumps(rows).replace("[[", "[[" + "1" * 5000 + ", ", 1))
    elif kind == "400 digits":
        (folder / "a.json").write_text(json.dumps(rows).replace(str(rows[0][0]), "1" * 400, 1))
    elif kind == "text for numbers":
        (folder / "a.json").write_text(json.dumps([[str(x), y] for x, y in rows]))
    elif kind == "true for numbers":
        (folder / "a.json").write_text(json.dumps([[True, y] for _, y in rows]))
    elif kind == "faces and points":
        (folder / "a.json").write_text(json.dumps({"points": rows, "faces": [{"points": rows}]}))
    elif kind == "two keys":
        (folder / "a.json").write_text(json.dumps({"points": rows, "landmarks": rows}))
    elif kind in ("terabytes", "negative shape", "overflow", "more than it holds"):
        shape = {
            "terabytes": (10**12, 68, 2),
            "negative shape": (-1, 68, 2),
            "overflow": (2**62, 2**62, 2**62),
            "more than it holds": (2, 68, 2),
        }[kind]
        _write_npy(folder / "a.npy", f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}", points)
    elif kind == "header that is no Python":
        _write_npy(folder / "a.npy", "{'descr': '<f8', 'shape': (((", points)
    elif kind == "pipe":
        os.mkfifo(folder / "a.pts")
    elif kind == "folder":
        (folder / "a.json").mkdir()
    elif kind == "too large":
        with open(folder / "a.json", "wb") as file:
            file.truncate(2**40)
    elif kind == "outside":
        np.save(folder / "a.npy", points.numpy() + 500)
    elif kind == "shares":
        np.save(folder / "a.npy", points.numpy() / 100)


def _write_npy(file: Path, header: str, points: torch.Tensor) -> None:
    """An .npy file of version 1 with any header before the points in float64."""
    padded = header.ljust(-(-(len(header) + 11) // 64) * 64 - 11) + "\n"
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded.encode()
    file.write_bytes(start + points.double().numpy().tobytes())


@pytest.mark.parametrize(
    ("kind", "came"),
    [
        ("count pts", "49 (51 without 60 and 64), or 468 or 478 (MediaPipe's mesh) of x and y; got shape (50, 2)"),
        ("declared", "expected 68 points (n_points); got 67 lines"),
        ("no braces", "expected the points of each face in a block between { and }; got no such block"),
        ("words", "expected two numbers a line; got"),
        ("binary", "expected text; got bytes that are not UTF-8"),
        ("count json", "expected 68 points (iBUG), 66 (paper order), 51 (iBUG 17..67), 49 "),
        ("ragged", "got lists that are no table of numbers"),
        ("keys", "got the keys ['shape']"),
        ("not json", "expected JSON; got"),
        ("null", "expected finite points; got 1 with NaN"),
        ("nan", "expected finite points; got 1 with NaN"),
        ("infinite", "expected finite points; got 2 with NaN"),
        ("three columns", "of x and y; got shape (68, 3)"),
        ("pickled", "expected a .npy array of numbers; got"),
        ("empty npy", "expected a .npy array of numbers; got"),
        ("two blocks", "expected 67 points (n_points); got 68 lines"),
        ("open block", "expected the points of each face in a block between { and }; got other braces"),
        ("n_points of 5,000 digits", "points (n_points); got 68 lines"),
        ("deep", "got lists or objects nested too deep"),
        ("deep object", "got lists or objects nested too deep"),
        ("5,000 digits", "expected JSON; got Exceeds the limit"),
        ("400 digits", "got lists that are no table of numbers"),
        ("text for numbers", "got lists that are no table of numbers"),
        ("true for numbers", "got lists that are no table of numbers"),
        ("faces and points", "got the keys ['faces', 'points']"),
        ("two keys", "got the keys ['landmarks', 'points']"),
        ("terabytes", "got a header for float64 (1000000000000, 68, 2), 1088000000000000 bytes, before 1088 bytes"),
        ("negative shape", "got a header for float64 (-1, 68, 2)"),
        ("overflow", "got a header for float64"),
        ("more than it holds", "got a header for float64 (2, 68, 2), 2176 bytes, before 1088 bytes"),
        ("header that is no Python", "expected a .npy array of numbers; got"),
        ("pipe", "got a pipe, socket or device"),
        ("folder", "got a folder"),
        ("too large", "expected the landmarks of one picture, at most 64 MB; got 1099512 MB"),
        ("outside", "expected landmarks inside the 100 x 120 picture; got none: x 5"),
        ("shares", "expected landmarks in px; got points that span 0."),
        ("nothing", "(or .json, .npy, .csv, .parquet); got no such file"),
    ],
)
def test_bad_file_is_named(kind: str, came: str, points: torch.Tensor, tmp_path: Path) -> None:
    _bad(kind, points, tmp_path)
    with pytest.raises(LandmarkFileError, match=re.escape(came)) as caught:
        _detect(tmp_path / "a.jpg")
    assert str(caught.value).startswith(str(tmp_path / "a."))


def test_points_partly_outside_are_a_face_cut_by_the_border(points: torch.Tensor, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", points.numpy() - 50)
    assert_close(_detect(tmp_path / "a.jpg")[0], points - 50)


@pytest.mark.parametrize(
    ("text", "came"),
    [
        ("image,x0,x1,y1\na.jpg,1,1,1\n", "got 3 such columns, missing y0"),
        ("name;x0\n", r"expected the columns x0..x67 and y0..y67 .* got the columns name;x0"),
        ("", "got the columns of an empty table"),
        ("image,x0,x_0\na.jpg,1,2\n", "expected every column once; got x0, x_0"),
    ],
)
def test_bad_table_is_refused_when_it_is_opened(text: str, came: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(LandmarkFileError, match=came):
        build_detector("file", source=tmp_path / "t.csv")


def test_bad_source_is_refused_when_it_is_opened(points: torch.Tensor, tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no table")
    (tmp_path / "t.txt").touch()
    _write_table(tmp_path / "words.parquet", ["a.jpg"], points[None])
    table = pa.parquet.read_table(tmp_path / "words.parquet")
    pa.parquet.write_table(table.set_column(1, "x0", pa.array(["left"])), tmp_path / "words.parquet")
    _write_table(tmp_path / "many.parquet", ["a.jpg"], torch.zeros(1, 70, 2))
    for name, came in (
        ("t.parquet", "cannot be read"),
        ("t.txt", "got another"),
        ("none.csv", "got nothing"),
        ("none", "got nothing"),
        ("words.parquet", "expected names and numbers in the columns"),
        ("many.parquet", r"468 or 478 \(MediaPipe's mesh\); got 70 points in the columns x0..y69"),
    ):
        with pytest.raises(LandmarkFileError, match=came):
            build_detector("file", source=tmp_path / name)


def test_path_is_needed() -> None:
    with pytest.raises(ValueError, match="paths must name all 1 pictures"):
        build_detector("file").detect([IMAGE])
    for wrong in (2, -1, True):
        with pytest.raises(ValueError, match="origin must be 0 or 1"):
            build_detector("file", origin=wrong)
