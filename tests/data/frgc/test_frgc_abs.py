"""Range grids of FRGC: the text layout, compression, round trips and damage."""

import gzip

import pytest
import torch

from facerecon_torch.data.frgc.files import read_abs, write_abs
from facerecon_torch.data.recordings import RangeGrid
from facerecon_torch.errors import DataFileError
from tests.data.format_error_cases import all_finite, flipped, read_or_error

MARK = "-999999.000000"
TEXT = (
    "2 rows\r\n3 columns\r\npixels (flag X Y Z):\r\n"
    "1 0 1 1 1 0 \r\n"
    f"-1.500000 {MARK} 1.500000 -1.500000 0.000000 {MARK} \r\n"
    f"2.250000 {MARK} 2.000000 -2.000000 -2.125000 {MARK} \r\n"
    f"-930.250000 {MARK} -930.500000 -931.000000 -931.062500 {MARK} \r\n"
)


def grid_of(rows=3, columns=4, seed=0):
    """Coordinates of six decimals, some cells not measured."""
    draw = torch.Generator().manual_seed(seed)
    points = (torch.randn(rows, columns, 3, generator=draw, dtype=torch.float64) * 1e8).round() / 1e6
    valid = torch.rand(rows, columns, generator=draw) > 0.3
    valid[0, 0] = True
    return RangeGrid(points, valid)


def assert_same(a, b):
    assert torch.equal(a.points, b.points)
    assert torch.equal(a.valid, b.valid)


@pytest.mark.parametrize("suffix", [".abs", ".abs.gz"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 4), (48, 64)])
def test_a_written_grid_is_read_back_identically(rows, columns, newline, suffix, tmp_path):
    grid = grid_of(rows, columns)
    assert_same(read_abs(write_abs(grid, tmp_path / f"a{suffix}", newline=newline)), grid)


def test_numbers_of_more_than_six_decimals_survive(tmp_path, rng):
    grid = RangeGrid(torch.randn(5, 6, 3, generator=rng, dtype=torch.float64), torch.ones(5, 6, dtype=torch.bool))
    assert_same(read_abs(write_abs(grid, tmp_path / "a.abs")), grid)


def test_the_writer_makes_the_text_of_real_files(tmp_path):
    (tmp_path / "a.abs").write_bytes(TEXT.encode())
    grid = read_abs(tmp_path / "a.abs")
    assert write_abs(grid, tmp_path / "b.abs").read_bytes() == TEXT.encode()
    packed = [write_abs(grid, tmp_path / name).read_bytes() for name in ("c.abs.gz", "d.abs.gz")]
    assert packed[0] == packed[1]
    assert gzip.decompress(packed[0]) == TEXT.encode()


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_the_first_row_is_the_top_and_flags_decide(newline, tmp_path):
    (tmp_path / "a.abs").write_bytes(TEXT.replace("\r\n", newline).encode())
    grid = read_abs(tmp_path / "a.abs")
    assert grid.valid.tolist() == [[True, False, True], [True, True, False]]
    assert grid.points[0].tolist() == [[-1.5, 2.25, -930.25], [0, 0, 0], [1.5, 2, -930.5]]
    assert grid.points[1].tolist() == [[-1.5, -2, -931], [0, -2.125, -931.0625], [0, 0, 0]]


def test_a_flag_of_zero_hides_numbers_and_the_marker_hides_a_flag_of_one(tmp_path):
    text = TEXT.replace("1 0 1 1 1 0", "1 1 1 0 1 0")
    (tmp_path / "a.abs").write_bytes(text.encode())
    grid = read_abs(tmp_path / "a.abs")
    assert grid.valid.tolist() == [[True, False, True], [False, True, False]]
    assert grid.points[1, 0].tolist() == [0, 0, 0]


def test_no_final_line_break_is_no_damage_while_the_last_number_is_whole(tmp_path):
    (tmp_path / "a.abs").write_bytes(TEXT.encode())
    (tmp_path / "b.abs").write_bytes(TEXT.rstrip("\r\n").encode())
    assert_same(read_abs(tmp_path / "a.abs"), read_abs(tmp_path / "b.abs"))
    cut = read_or_error(read_abs, tmp_path / "c.abs", TEXT.rstrip().encode())[1]
    assert "Z: expected white space after the last number" in cut


def test_every_truncation_is_an_error_or_loses_nothing(tmp_path):
    (tmp_path / "a.abs").write_bytes(TEXT.encode())
    whole, content = read_abs(tmp_path / "a.abs"), TEXT.encode()
    read = {n: read_or_error(read_abs, tmp_path / "cut.abs", content[:n])[0] for n in range(len(content))}
    kept = {n: grid for n, grid in read.items() if grid is not None}
    assert set(kept) == {len(content) - 2, len(content) - 1}  # without the last line break
    for grid in kept.values():
        assert_same(grid, whole)


def test_every_truncation_of_a_compressed_file_is_an_error(tmp_path):
    content = write_abs(grid_of(), tmp_path / "a.abs.gz").read_bytes()
    for length in range(len(content)):
        assert read_or_error(read_abs, tmp_path / "cut.abs.gz", content[:length])[0] is None, length


@pytest.mark.parametrize("suffix", [".abs", ".abs.gz"])
def test_random_flips_give_an_error_or_a_finite_grid(suffix, tmp_path):
    content = write_abs(grid_of(), tmp_path / f"a{suffix}").read_bytes()
    read = [read_or_error(read_abs, tmp_path / f"flip{suffix}", c)[0] for c in flipped(content, 1000)]
    grids = [grid for grid in read if grid is not None]
    assert 0 < len(grids) < 1000
    for grid in grids:
        assert grid.shape == (3, 4)
        assert grid.valid.shape == (3, 4)
        assert all_finite(grid.points)
        if suffix == ".abs.gz":  # its checksum finds every change that matters
            assert_same(grid, grid_of())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("2 rows", "3 rows", "flag: expected 9 numbers in a line; got 6"),
        ("2 rows", "two rows", "rows: expected '480 rows'"),
        ("2 rows", "0 rows", "rows, columns"),
        ("2 rows", "99999 rows\r\n99999 columns\r\n#", "heading of the pixels"),
        ("2 rows\r\n3 columns", "99999 rows\r\n99999 columns", "rows, columns"),
        ("3 columns", "4 columns", "flag: expected 8 numbers in a line; got 6"),
        ("(flag X Y Z)", "(X Y Z)", "heading of the pixels"),
        ("1 0 1 1 1 0", "1 0 1 1 2 0", "flag: expected 0 or 1; got 1 others, the first 2"),
        ("1 0 1 1 1 0", "0 0 0 0 0 0", "flag: expected at least one measured point"),
        ("1 0 1 1 1 0", "1 0 1 1 1 0 1", "flag: expected 6 numbers in a line; got 7"),
        ("2.250000", "nan", "Y: expected plain decimal numbers"),
        ("2.250000", "2.2.5", "Y: expected plain decimal numbers"),
        ("2.250000", "2_25", "Y: expected plain decimal numbers"),
        ("2.250000", "1e999", "Y: expected measured points within 10000 mm; got 1 others, the first inf"),
        ("-930.250000", MARK, "Z: expected measured points within 10000 mm; got 1 others, the first -999999"),
        ("-930.250000", "-930.25" + "0" * 400, "Z: expected a line of at most"),
    ],
)
def test_damage_is_named(old, new, message, tmp_path):
    assert message in read_or_error(read_abs, tmp_path / "a.abs", TEXT.replace(old, new, 1).encode())[1]


def test_nothing_may_follow_the_last_line(tmp_path):
    assert "end of file" in read_or_error(read_abs, tmp_path / "a.abs", TEXT.encode() + b"1 2 3\r\n")[1]
    assert "end of file" in read_or_error(read_abs, tmp_path / "a.abs", TEXT.encode() + b" " * 5000)[1]


def test_missing_files_other_names_and_uncompressed_bytes_are_errors(tmp_path):
    (tmp_path / "a.abs.gz").write_bytes(TEXT.encode())
    for name in ("none.abs", "a.bnt", "a.abs.gz"):
        with pytest.raises(DataFileError, match="expected"):
            read_abs(tmp_path / name)
    with pytest.raises(ValueError, match=r"must end in \.abs"):
        write_abs(grid_of(), tmp_path / "a.txt")
    with pytest.raises(ValueError, match="newline"):
        write_abs(grid_of(), tmp_path / "a.abs", newline="\r")


def test_a_grid_of_the_real_size_is_read_back(tmp_path):
    """480 x 640 cells: 1.2 million numbers."""
    draw = torch.Generator().manual_seed(1)
    valid = torch.rand(480, 640, generator=draw) > 0.6
    grid = RangeGrid((torch.randn(480, 640, 3, generator=draw, dtype=torch.float64) * 1e8).round() / 1e6, valid)
    assert_same(read_abs(write_abs(grid, tmp_path / "02463d452.abs")), grid)


@pytest.mark.parametrize("suffix", [".abs", ".abs.gz"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(suffix, tmp_path, monkeypatch):
    """A full disk shows in the middle of the numbers."""
    path = write_abs(grid_of(), tmp_path / f"a{suffix}")

    def full(values):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("facerecon_torch.data.frgc.files._decimals", full)
    with pytest.raises(OSError, match="No space left"):
        write_abs(grid_of(seed=1), path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert_same(read_abs(path), grid_of())
