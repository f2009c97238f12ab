"""The sheet of a face model."""

import pytest
import torch

from facerecon_torch.commands.show import draw_model
from facerecon_torch.model.default_face import load_default_face
from facerecon_torch.model.linear import LinearModel
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


@pytest.mark.parametrize(("identities", "expressions", "rows"), [(3, 25, 1 + 1 + 2), (63, 6, 1 + 2 + 2), (1, 0, 1 + 1)])
def test_a_model_of_few_components_has_white_tiles_at_the_end_of_a_row(identities, expressions, rows):
    model = tiny_linear()
    draw = torch.Generator().manual_seed(0)
    shape = model.mean.shape
    few = LinearModel(
        model.mean,
        torch.randn(*shape, identities, generator=draw),
        torch.randn(*shape, expressions, generator=draw),
        topology=model.topology,
    )
    tile, columns = 32, 8
    sheet = draw_model(few, tile=tile, columns=columns)
    assert sheet.shape == (3, rows * tile, columns * tile)
    inked = [[bool((part < 0.99).any()) for part in row.split(tile, dim=2)] for row in sheet.split(tile, dim=1)]
    assert sum(map(sum, inked)) == columns + 2 * min(columns, identities) + 2 * min(columns, expressions)
    assert all(row == sorted(row, reverse=True) and row[0] for row in inked)
