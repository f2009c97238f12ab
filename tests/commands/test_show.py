"""The sheet of a face model."""

import pytest
import torch

from facerecon_torch.commands.show import draw_model
from facerecon_torch.model.default_face import load_default_face
from tests.tiny_model import tiny_bilinear, tiny_linear


@pytest.mark.parametrize("build", [tiny_bilinear, tiny_linear, load_default_face], ids=lambda build: build.__name__)
def test_no_head_is_cut_by_its_tile(build):
    tile, columns = 64, 4
    sheet = draw_model(build(), tile=tile, columns=columns)
    assert sheet.shape[2] == columns * tile
    for row in sheet.split(tile, dim=1):
        for part in row.split(tile, dim=2):
            inked = (part < 0.99).any(0)
            border = torch.cat([inked[0], inked[-1], inked[:, 0], inked[:, -1]])
            assert not border.any()
            assert inked.float().mean() > 0.1
