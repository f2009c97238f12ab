"""Range grids of Bosphorus: the byte table, orientation, round trips and damage."""

import struct
from dataclasses import replace

import numpy as np
import pytest
import torch

from facerecon_torch.data.bosphorus.bnt import BosphorusScan, read_bnt, write_bnt
from facerecon_torch.data.recordings import RangeGrid
from facerecon_torch.errors import DataFileError
from tests.data.format_error_cases import all_finite, flipped, read_or_error

NAME = "bs000_CAU_A22A25_0.png"


def scan_of(rows=4, columns=5, seed=0):
    """Points on the grid's own steps (0.765 mm), some not measured, with the texture coordinates of real files."""
    draw = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(rows).flip(0) * 0.765, torch.arange(columns) * 0.765, indexing="ij")
    z = torch.randn(rows, columns, generator=draw, dtype=torch.float64) * 10
    valid = torch.rand(rows, columns, generator=draw) > 0.3
    valid[0, 0] = True
    u = (1 + 6 * torch.arange(columns, dtype=torch.float64)) / (6 * columns)
    v = (6 * rows - 1 - 6 * torch.arange(rows - 1, -1, -1, dtype=torch.float64)) / (6 * rows)
    texture = torch.stack([u.expand(rows, columns), v[:, None].expand(rows, columns)], dim=-1)
    return BosphorusScan(RangeGrid(torch.stack([x.double(), y.double(), z], dim=-1), valid), texture, NAME)


def assert_same(a, b):
    assert torch.equal(a.grid.points, b.grid.points)
    assert torch.equal(a.grid.valid, b.grid.valid)
    assert torch.equal(a.texture, b.texture)
    assert (a.image_name, a.background) == (b.image_name, b.background)


@pytest.fixture
def content(tmp_path):
    return write_bnt(scan_of(), tmp_path / "source.bnt").read_bytes()


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (4, 5), (31, 17)])
def test_a_written_scan_is_read_back_identically(rows, columns, tmp_path):
    scan = scan_of(rows, columns)
    assert_same(read_bnt(write_bnt(scan, tmp_path / "deep" / "a.bnt")), scan)


def test_float32_is_stored_exactly(tmp_path):
    scan = scan_of()
    single = replace(scan, grid=RangeGrid(scan.grid.points.float(), scan.grid.valid), texture=scan.texture.float())
    back = read_bnt(write_bnt(single, tmp_path / "a.bnt"))
    assert torch.equal(back.grid.points, single.grid.points.double())


def test_bytes_follow_the_table_of_a_real_file(tmp_path):
    """The size and the header's fields of a real file of 233 x 186 cells."""
    content = write_bnt(scan_of(233, 186), tmp_path / "a.bnt").read_bytes()
    assert len(content) == 1733560
    assert struct.unpack_from("<HHdH", content) == (233, 186, -1.0e9, 22)
    assert content[14:36] == NAME.encode()
    assert struct.unpack_from("<I", content, 36) == (216690,)
    planes = np.frombuffer(content, "<f8", offset=40).reshape(5, 233, 186)
    measured = planes[0] != -1e9
    assert np.array_equal(planes[0] == -1e9, planes[2] == -1e9)
    assert (
        np.diff(np.where(measured, planes[1], np.nan)[:, :40], axis=0)[measured[1:, :40] & measured[:-1, :40]] > 0
    ).all()
    assert (np.diff(planes[4][:, 0]) < 0).all()  # v falls with the file's rows
    column, row = np.arange(186), np.arange(233)
    assert np.allclose(planes[3][0] * 1116, 1 + 6 * column, rtol=0, atol=1e-9)
    assert np.allclose(planes[4][:, 0] * 1398, 1398 - 1 - 6 * row, rtol=0, atol=1e-9)


def test_a_file_built_by_hand_is_upright(tmp_path):
    """Row 0 of the file is the bottom; the background is whatever the header says."""
    x, y, z = [[0, 1], [0, 1], [0, 1]], [[0, 0], [1, 1], [2, 2]], [[5, 6], [7, -3], [8, 9]]
    x[1][1] = y[1][1] = -3
    u, v = np.tile([1 / 12, 7 / 12], (3, 1)), np.tile(np.array([[17], [11], [5]]) / 18, (1, 2))
    planes = np.array([x, y, z, u, v], dtype="<f8")
    (tmp_path / "a.bnt").write_bytes(
        struct.pack("<HHdH", 3, 2, -3.0, 5) + b"a.png" + struct.pack("<I", 30) + planes.tobytes()
    )
    scan = read_bnt(tmp_path / "a.bnt")
    assert scan.grid.points[0].tolist() == [[0, 2, 8], [1, 2, 9]]
    assert scan.grid.points[2].tolist() == [[0, 0, 5], [1, 0, 6]]
    assert scan.grid.valid.tolist() == [[True, True], [True, False], [True, True]]
    assert scan.grid.points[1, 1].tolist() == [0, 0, 0]
    torch.testing.assert_close(scan.pixels(18, 12)[0], torch.tensor([[0.0, 4.0], [6.0, 4.0]], dtype=torch.float64))


def test_every_truncation_is_an_error(content, tmp_path):
    for length in range(len(content)):
        scan, _ = read_or_error(read_bnt, tmp_path / "cut.bnt", content[:length])
        assert scan is None, length
    assert read_or_error(read_bnt, tmp_path / "long.bnt", content + b"\0")[0] is None


def test_random_flips_give_an_error_or_a_finite_scan(content, tmp_path):
    read = [read_or_error(read_bnt, tmp_path / "flip.bnt", c)[0] for c in flipped(content, 1000)]
    scans = [scan for scan in read if scan is not None]
    assert 0 < len(scans) < 1000
    for scan in scans:
        assert scan.grid.shape == (4, 5)
        assert all_finite(scan.grid.points, scan.texture)
        assert scan.texture.shape == (4, 5, 2)


@pytest.mark.parametrize(
    ("offset", "data", "message"),
    [
        (0, b"\x05\x00", "size: expected 1040 bytes for 5 x 5"),
        (0, b"\x00\x00", "nrows, ncols"),
        (4, struct.pack("<d", float("nan")), "zmin"),
        (14, b"/", "image name"),
        (14, b"\xff", "image name"),
        (36, struct.pack("<I", 20), "count of numbers: expected 4 x 5 x 5 = 100; got 20"),
        (40 + 8 * 15, struct.pack("<d", float("nan")), "x: expected numbers in"),
        (40 + 8 * 15, struct.pack("<d", 2e4), "x: expected numbers in"),
        (40 + 8 * 60, struct.pack("<d", float("inf")), "u: expected numbers in"),
    ],
)
def test_damage_is_named(offset, data, message, content, tmp_path):
    changed = content[:offset] + data + content[offset + len(data) :]
    assert message in read_or_error(read_bnt, tmp_path / "a.bnt", changed)[1]


def test_an_empty_grid_is_an_error(content, tmp_path):
    background = struct.pack("<d", -1e9) * 20
    changed = content[:40] + background * 3 + content[40 + 480 :]
    assert "at least one measured point" in read_or_error(read_bnt, tmp_path / "a.bnt", changed)[1]


def test_missing_files_and_other_names_are_errors(tmp_path):
    for path in (tmp_path / "none.bnt", tmp_path / "a.obj"):
        with pytest.raises(DataFileError, match="expected"):
            read_bnt(path)
    with pytest.raises(ValueError, match=r"must end in \.bnt"):
        write_bnt(scan_of(), tmp_path / "a.txt")


def test_scans_and_grids_refuse_what_no_file_can_hold():
    scan = scan_of()
    for image_name in ("", "a/b.png", "ä.png"):
        with pytest.raises(ValueError, match="image_name"):
            replace(scan, image_name=image_name)
    with pytest.raises(ValueError, match="background"):
        replace(scan, background=float(scan.grid.points[0, 0, 0]))
    with pytest.raises(ValueError, match="texture"):
        replace(scan, texture=scan.texture[:2])
    with pytest.raises(ValueError, match="at least one measured"):
        RangeGrid(scan.grid.points, torch.zeros_like(scan.grid.valid))
    with pytest.raises(ValueError, match="within"):
        RangeGrid(scan.grid.points * float("nan"), scan.grid.valid)


def test_unmeasured_cells_become_zero():
    grid = RangeGrid(
        torch.full((1, 2, 3), float("nan")).index_fill(1, torch.tensor([0]), 1.0), torch.tensor([[True, False]])
    )
    assert grid.points.tolist() == [[[1, 1, 1], [0, 0, 0]]]
    assert grid.measured.shape == (1, 3)
