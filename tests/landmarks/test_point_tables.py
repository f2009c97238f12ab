"""Tables of landmarks as other programs write them: names of columns, names of pictures, and what is ambiguous."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.errors import LandmarkFileError
from facerecon_torch.landmarks import build_detector
from facerecon_torch.landmarks.point_tables import read_table

IMAGE = torch.zeros(3, 120, 100)
POINTS = np.random.default_rng(0).uniform(10, 90, (2, 68, 2)).round(3)
NAMES = ("a.jpg", "b.jpg")


def write(file: Path, header: list[str], rows: list[list[object]]) -> None:
    if file.suffix == ".csv":
        file.write_text("\n".join([",".join(header), *(",".join(map(str, row)) for row in rows)]) + "\n")
    else:
        arrays = [pa.array(list(column)) for column in zip(*rows)]
        pa.parquet.write_table(pa.Table.from_arrays(arrays, names=header), file)


def grouped(pattern: str, first: int = 0, count: int = 68) -> list[str]:
    """All x, then all y."""
    return [pattern.format(axis, i) for axis in "xy" for i in range(first, first + count)]


def values(k: int) -> list[float]:
    return POINTS[k].T.flatten().tolist()


def detect(source: Path, name: str, **options: object) -> torch.Tensor:
    detector = build_detector("file", source=source, **options)
    (face,) = detector.detect([IMAGE], paths=[source.parent / name])[0]
    return face.points


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("pattern", "first"), [("{}{}", 0), ("{}_{}", 0), (" {}_{}", 0), ("{}{}", 1), ("{}_{}", 1), ("{}{:02}", 0)]
)
def test_columns_of_points(pattern: str, first: int, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"t{suffix}"
    write(file, ["file", *grouped(pattern, first), " confidence"], [[NAMES[k], *values(k), 0.9] for k in (0, 1)])
    for k in (0, 1):
        assert_close(detect(file, NAMES[k]).numpy(), POINTS[k])


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_interleaved_columns(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"t{suffix}"
    header = [f"{axis}{i}" for i in range(68) for axis in "xy"]
    write(file, [*header, "image"], [[*POINTS[k].flatten().tolist(), NAMES[k]] for k in (0, 1)])
    assert_close(detect(file, "b.jpg").numpy(), POINTS[1])


@pytest.mark.parametrize(
    "column", ["image", " Image", "filename", "file", "File Name", "image_id", "imagePath", "img_name", "path"]
)
def test_columns_of_names(column: str, tmp_path: Path) -> None:
    write(tmp_path / "t.csv", [column, *grouped("{}{}")], [[f" {NAMES[k]}", *values(k)] for k in (0, 1)])
    assert_close(detect(tmp_path / "t.csv", "b.jpg").numpy(), POINTS[1])


def test_numbers_as_names_keep_their_zeros(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", ["image_id", *grouped("{}{}")], [["0001", *values(0)], ["1", *values(1)]])
    assert_close(detect(tmp_path / "t.csv", "0001.png").numpy(), POINTS[0])


def test_openface(tmp_path: Path) -> None:
    """Points in space are X_0, beside x_0 in the picture; eyes are eye_lmk_x_0; commas are followed by spaces."""
    header = ["face", " confidence", " eye_lmk_x_0", *(f" {name}" for name in grouped("{}_{}"))]
    header += [f" {axis}_{i}" for axis in "XYZ" for i in range(68)]
    space = [1000.0 + k for k in range(3 * 68)]
    row = [0, 0.98, 5.0, *values(0), *space]
    file = tmp_path / "a.csv"
    file.write_text(",".join(header) + "\n" + ", ".join(map(str, row)) + "\n")
    for options in ({"source": file}, {}):  # one table for one picture: named, or beside it
        (face,) = build_detector("file", **options).detect([IMAGE], paths=[tmp_path / "a.jpg"])[0]
        assert_close(face.points.numpy(), POINTS[0])
    detector = build_detector("file", source=file)
    with pytest.raises(LandmarkFileError, match="expected one picture for one landmark file"):
        detector.detect([IMAGE, IMAGE], paths=[tmp_path / "a.jpg", tmp_path / "b.jpg"])


def test_rows_of_a_table_without_names_are_faces_of_one_picture(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", grouped("{}{}"), [values(0), values(1)])
    (faces,) = build_detector("file", source=tmp_path).detect([IMAGE], paths=[Path("a.png")])
    assert len(faces) == 2
    write(tmp_path / "a.csv", ["frame", *grouped("{}{}")], [[1, *values(0)], [2, *values(1)]])
    with pytest.raises(LandmarkFileError, match=r"expected a column with the picture's name .* got a table of frames"):
        build_detector("file", source=tmp_path).detect([IMAGE], paths=[Path("a.png")])
    write(tmp_path / "a.csv", ["image", *grouped("{}{}")], [["a.png", *values(0)]])
    with pytest.raises(LandmarkFileError, match=r"got one with names of pictures. Give it as landmarks\.path="):
        build_detector("file", source=tmp_path).detect([IMAGE], paths=[Path("a.png")])


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_text_in_a_table_without_names_of_pictures_is_refused(suffix: str, tmp_path: Path) -> None:
    """Its rows may be of several pictures, and all would be faces of the one that is asked for."""
    file = tmp_path / f"t{suffix}"
    write(file, ["name", *grouped("{}{}")], [["a.png", *values(0)], ["b.png", *values(1)]])
    with pytest.raises(LandmarkFileError, match=r"expected a column with the picture's name .*; got text in name$"):
        build_detector("file", source=file)


def test_a_column_of_lists(tmp_path: Path) -> None:
    for name in ("points", "landmarks", "landmarks_2d"):
        table = pa.table({"image": list(NAMES), name: [POINTS[0].tolist(), POINTS[1][17:].tolist()]})
        pa.parquet.write_table(table, tmp_path / "t.parquet")
        assert_close(detect(tmp_path / "t.parquet", "a.jpg").numpy(), POINTS[0])
        assert_close(detect(tmp_path / "t.parquet", "b.jpg").numpy()[17:], POINTS[1][17:])
    pa.parquet.write_table(pa.table({"image": ["a.jpg"], "points": [None]}), tmp_path / "t.parquet")
    with pytest.raises(LandmarkFileError, match=r"image a\.jpg: expected 68 points"):
        detect(tmp_path / "t.parquet", "a.jpg")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("header", "came"),
    [
        (["image", "file", *grouped("{}{}")], "expected one column with the picture's name; got image, file"),
        (["image", "image", *grouped("{}{}")], "expected one column with the picture's name; got image, image"),
        (["image", "x_0", *grouped("{}{}")], "expected every column once; got x_0, x0"),
        (["image", "x00", *grouped("{}{}")], "expected every column once; got x00, x0"),
        (["image", *grouped("{}{}")[1:]], r"got 135 such columns, missing x0"),
        (["image", *grouped("{}{}", 2)], r"got 136 such columns, missing x1, y1"),
        (["image", *grouped("{}{}")[:68]], r"got 68 such columns, missing y0, y1, y2, y3, y4, y5, \.\.\."),
        (["image", *grouped("{}{}", 0, 69)], r"468 or 478 \(MediaPipe's mesh\); got 69 points in the columns x0..y68"),
        (
            ["image", "left", "right"],
            r"expected the columns x0..x67 and y0..y67 .*; got the columns image, left",
        ),
    ],
)
def test_ambiguous_and_missing_columns_are_named(header: list[str], came: str, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"t{suffix}"
    write(file, header, [[f"a{name}" if name in ("image", "file") else 5.0 for name in header]])
    with pytest.raises(LandmarkFileError, match=rf"t\{suffix}: .*{came}"):
        read_table(file)


def test_lists_beside_coordinates_are_ambiguous(tmp_path: Path) -> None:
    row = [NAMES[0], *values(0), POINTS[0].tolist()]
    write(tmp_path / "t.parquet", ["image", *grouped("{}{}"), "points"], [row])
    with pytest.raises(LandmarkFileError, match="expected the points once; got the columns x0, y0, points"):
        read_table(tmp_path / "t.parquet")


@pytest.mark.parametrize("text", ["image,x0\n\xff\xfe", "\x00\x01", "a" * 200_000])
def test_damaged_text_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(LandmarkFileError, match=r"t\.csv: expected"):
        read_table(tmp_path / "t.csv")
