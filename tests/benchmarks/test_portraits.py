"""`benchmarks.accuracy.portraits` on scikit-image's astronaut."""

import pytest

from benchmarks.accuracy.portraits import main
from facerecon_torch.images import read_pixels


def test_the_astronauts_points_are_met_and_the_sheet_is_a_row_of_three(tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    assert main([f"sheet={sheet}"]) == 0
    words = capsys.readouterr().out.split()
    fit, cascade = float(words[words.index("fit") + 1]), float(words[words.index("cascade") + 1])
    assert cascade < fit < 4
    photograph, fitted, found = read_pixels(sheet).float().chunk(3, -1)
    assert photograph.shape == (3, 360, 360)
    for drawn in (fitted, found):
        assert float((drawn - photograph).abs().mean()) > 5
    assert float((fitted - found).abs().mean()) > 0.5


def test_an_unknown_key_is_refused():
    with pytest.raises(ValueError, match="must be"):
        main(["photo=x"])
