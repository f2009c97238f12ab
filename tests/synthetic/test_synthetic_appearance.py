"""Looks go with identity in the ordinary families, and do not in the shifted one."""

from dataclasses import replace

import torch

from facerecon_torch.synthetic.people.appearance import Appearance, Macro, draw_appearance

MIDDLE = Macro(gender=0.5, age=0.3, african=1 / 3, asian=1 / 3, caucasian=1 / 3)


def _crowd(macro: Macro, *, shifted: bool = False) -> list[Appearance]:
    rng = torch.Generator().manual_seed(0)
    return [draw_appearance(macro, rng, shifted=shifted) for _ in range(60)]


def _mean(crowd: list[Appearance], name: str) -> float:
    values = [getattr(look, name) for look in crowd]
    return sum(v if isinstance(v, (int, float)) else sum(v) / 3 for v in values) / len(values)


def test_skin_goes_with_ancestry() -> None:
    dark = _crowd(replace(MIDDLE, african=1.0, asian=0.0, caucasian=0.0))
    fair = _crowd(replace(MIDDLE, african=0.0, asian=0.0, caucasian=1.0))
    assert max(look.skin[1] for look in dark) < min(look.skin[1] for look in fair)
    assert _mean(fair, "freckles") > _mean(dark, "freckles")


def test_hair_and_make_up_go_with_gender() -> None:
    men, women = _crowd(replace(MIDDLE, gender=1.0)), _crowd(replace(MIDDLE, gender=0.0))
    assert all(look.stubble == 0 and look.beard == 0 for look in women)
    assert sum(look.beard > 0 for look in men) > 5
    assert _mean(men, "stubble") > 0.2
    assert _mean(men, "brow_thickness") > _mean(women, "brow_thickness") + 1.5
    assert _mean(women, "eyeliner") > _mean(men, "eyeliner") + 0.2


def test_age_wrinkles_and_greys() -> None:
    old, young = _crowd(replace(MIDDLE, age=0.7)), _crowd(replace(MIDDLE, age=0.0))
    assert _mean(old, "wrinkles") > _mean(young, "wrinkles") + 0.3
    assert _mean(old, "hair") > 1.5 * _mean(young, "hair")


def test_shifted_looks_ignore_the_sliders() -> None:
    one = _crowd(replace(MIDDLE, gender=1.0, african=1.0, asian=0.0, caucasian=0.0), shifted=True)
    other = _crowd(replace(MIDDLE, gender=0.0, african=0.0, asian=0.0, caucasian=1.0), shifted=True)
    assert one == other


def test_only_the_ordinary_families_have_detail_and_the_old_more() -> None:
    old, young = _crowd(replace(MIDDLE, age=0.9)), _crowd(replace(MIDDLE, age=0.0))
    for name in ("bumps", "mottle"):
        assert _mean(old, name) > 1.2 * _mean(young, name)
        assert min(getattr(look, name) for look in old + young) > 0
    assert min(look.tooth_gaps for look in old + young) > 0.2
    assert all(max(look.bumps, look.mottle, look.tooth_gaps) == 0 for look in _crowd(MIDDLE, shifted=True))
