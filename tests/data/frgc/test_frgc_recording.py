"""A range grid and its texture, read together."""

import pytest
import torch

from facerecon_torch.data.frgc.abs_file import write_abs
from facerecon_torch.data.frgc.recording import read_recording
from facerecon_torch.data.frgc.texture import Texture, write_texture
from facerecon_torch.data.range_grid import RangeGrid
from facerecon_torch.errors import DataFileError


@pytest.fixture
def range_file(tmp_path):
    grid = RangeGrid(torch.ones(2, 3, 3), torch.ones(2, 3, dtype=torch.bool))
    return write_abs(grid, tmp_path / "02463d452.abs.gz")


@pytest.mark.parametrize("stem", ["02463d452", "02463d453"])
def test_both_parts_arrive(stem, range_file):
    write_texture(Texture(torch.eye(3)[:, :2, None].expand(3, 2, 3)), range_file.with_name(f"{stem}.ppm"))
    recording = read_recording(range_file)
    assert recording.name.stem == "02463d452"
    assert recording.grid.shape == (2, 3)
    assert recording.texture.image[:, 1, 2].tolist() == [0, 1, 0]


def test_a_texture_of_another_size_is_an_error(range_file):
    write_texture(Texture(torch.zeros(3, 3, 2)), range_file.with_name("02463d452.ppm"))
    with pytest.raises(DataFileError, match=r"02463d452\.ppm: rows, columns: expected \(2, 3\) .* got \(3, 2\)"):
        read_recording(range_file)


def test_a_missing_texture_is_an_error(range_file):
    with pytest.raises(DataFileError, match="texture"):
        read_recording(range_file)
