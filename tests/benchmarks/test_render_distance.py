"""Distances of pictures from renders, from data whose answer is known."""

import pytest
import torch

from benchmarks.accuracy.render_distance import main, measure_distances


def test_known_shifts_are_measured_in_deviations(rng: torch.Generator) -> None:
    scale = torch.linspace(0.5, 2.0, 400)
    reference, held_out = (3.0 + scale * torch.randn(n, 400, generator=rng) for n in (4000, 300))
    pictures = 3.0 + scale * (2.0 + torch.randn(4, 400, generator=rng))
    found = measure_distances(pictures, reference, held_out, rng)
    assert found.pictures.tolist() == pytest.approx([5**0.5] * 4, rel=0.06)  # 2 squared, and a variance of 1
    assert found.mean == pytest.approx((4 + 1 / 4) ** 0.5, rel=0.04)
    assert float(found.renders.mean()) == pytest.approx(1.0, rel=0.03)
    assert found.floor == pytest.approx(0.5, rel=0.03)
    assert found.excess == pytest.approx(2.0, rel=0.04)


def test_renders_themselves_have_no_excess(rng: torch.Generator) -> None:
    reference, held_out, pictures = (torch.randn(n, 2000, generator=rng) for n in (2000, 300, 5))
    found = measure_distances(pictures, reference, held_out, rng)
    assert found.excess < 0.1


def test_a_feature_that_hardly_varies_does_not_outweigh_the_others(rng: torch.Generator) -> None:
    reference, held_out = torch.randn(500, 200, generator=rng), torch.randn(50, 200, generator=rng)
    reference[:, 0] *= 1e-6
    held_out[:, 0] *= 1e-6
    picture = torch.zeros(1, 200)
    picture[0, 0] = 0.1
    assert measure_distances(picture, reference, held_out, rng).mean < 0.2


@pytest.mark.parametrize(("pictures", "reference", "held_out"), [(0, 9, 9), (5, 9, 4), (1, 1, 9)])
def test_too_few_rows_are_refused(pictures: int, reference: int, held_out: int) -> None:
    rows = [torch.zeros(n, 3) for n in (pictures, reference, held_out)]
    with pytest.raises(ValueError, match=f"got {reference}, {pictures} and {held_out}"):
        measure_distances(*rows, torch.Generator())


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValueError, match="got picture"):
        main(["picture=a.jpg"])
