"""Detail of skin, teeth and cameras: what it adds, and that a shifted picture has none of it."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.synthetic.people.appearance import Appearance, Macro, draw_appearance
from facerecon_torch.synthetic.people.canvas import blur
from facerecon_torch.synthetic.people.hair import draw_hair
from facerecon_torch.synthetic.people.head import PARTS, load_head
from facerecon_torch.synthetic.people.skin import paint_skin
from facerecon_torch.synthetic.render.materials import Fragments, MaterialSources, assign_materials
from facerecon_torch.synthetic.render.photograph import draw_camera_settings, expose

MIDDLE = Macro(gender=0.5, age=0.3, african=1 / 3, asian=1 / 3, caucasian=1 / 3)


def _layers(look: Appearance) -> torch.Tensor:
    head = load_head()
    return paint_skin(head.atlas, head.unrolled_marks, look, torch.Generator().manual_seed(7))


def _texture(layers: torch.Tensor) -> tuple[float, float]:
    """The deviations of brightness and of the relief's slope within 8 px, in the middle of the forehead."""
    patch = layers[:, 60:110, 280:370]
    fine = patch - blur(patch, 8.0)
    return float(fine[:3].mean(0).std()), float(fine[3:5].std())


def test_bumps_and_specks_give_the_forehead_texture() -> None:
    look = replace(draw_appearance(MIDDLE, torch.Generator().manual_seed(0)), bumps=0.0, mottle=0.0)
    colour, slope = _texture(_layers(look))
    rough_colour, rough_slope = _texture(_layers(replace(look, bumps=0.05)))
    specked_colour, specked_slope = _texture(_layers(replace(look, mottle=0.25)))
    assert rough_slope > 1.5 * slope
    assert specked_colour > 1.5 * colour
    assert rough_colour < 1.1 * colour  # relief is no colour
    assert specked_slope < 1.1 * slope  # and the other way round


@pytest.mark.parametrize("amount", [0.5, 1.0])
def test_sharpening_adds_the_fine_detail_once_more(amount: float, rng: torch.Generator) -> None:
    picture = 0.2 + 0.05 * torch.rand(3, 24, 24, generator=rng)
    face = picture.mean((1, 2))
    plain = replace(draw_camera_settings(rng), sharpening=0.0, noise=0.0, saturation=1.0, grey=False)
    before = expose(picture, face, plain, rng)
    after = expose(picture, face, replace(plain, sharpening=amount), rng)
    assert_close(after, (before + amount * (before - blur(before, 1.2))).clamp(0, 1), atol=1e-5, rtol=0)
    assert float((after - before).abs().max()) > 0.005


def test_cameras_sharpen_but_not_those_of_the_shifted_family() -> None:
    rng, twin = (torch.Generator().manual_seed(1) for _ in range(2))
    assert sum(draw_camera_settings(rng).sharpening > 0 for _ in range(40)) > 30
    assert all(draw_camera_settings(twin, shifted=True).sharpening == 0 for _ in range(40))


def _enamel(look: Appearance, places: list[float]) -> torch.Tensor:
    """The colour of teeth at some distances in mm from the middle."""
    head, n = load_head(), len(places)
    nothing = torch.zeros(3, n)
    points = Fragments(
        torch.full((n,), PARTS.index("teeth")), torch.stack([torch.tensor(places), *nothing[:2]]),
        torch.tensor([[0.0], [0.0], [1.0]]).expand(3, n), nothing, nothing, nothing[0], nothing[0],
    )  # fmt: skip
    hair = draw_hair(look, head.atlas.axis_depth, torch.Generator().manual_seed(0))
    forward = torch.tensor([[0.0, 0.0, 1.0]] * 2)
    skin = torch.zeros(6, head.atlas.height, head.atlas.width)
    up = torch.tensor([0.0, 1.0, 0.0])
    sources = MaterialSources(look, head.atlas, skin, hair, head.eye_centres, forward, up)
    return assign_materials(points, sources).colour


def test_teeth_are_darker_where_they_meet() -> None:
    look = replace(draw_appearance(MIDDLE, torch.Generator().manual_seed(0)), tooth_gaps=0.0)
    middles_and_edges = [4.2, -11.4, 0.0, 8.4, -14.4]
    plain, gapped = (_enamel(one, middles_and_edges) for one in (look, replace(look, tooth_gaps=0.6)))
    assert_close(gapped[:, :2], plain[:, :2])
    assert_close(gapped[:, 2:], 0.4 * plain[:, 2:])
