"""Drawn people: the distribution of DESIGN's sampling, its determinism, and the held-out slider groups."""

import numpy as np
import pytest
import torch

from facerecon_torch.model.default_face import load_source, sliders
from facerecon_torch.model.default_face.sliders import HELD_OUT, expected_sliders, sample_identities, slider_axes

SOURCE = load_source()
NAMES, SPREADS = SOURCE.identity_names, SOURCE.spreads


def column(name: str) -> int:
    return NAMES.index(name)


def held_out_columns() -> list[int]:
    axes = [axis for axis in slider_axes(NAMES) if axis.held_out]
    return [c for axis in axes for c in (*axis.increase, *axis.decrease)]


def assert_mean_is(expected: torch.Tensor, drawn: torch.Tensor) -> None:
    """Within five standard errors; clipping, which the expectation leaves out, adds up to 1e-3."""
    error = drawn.std(0) / len(drawn) ** 0.5
    assert bool(((drawn.mean(0) - expected).abs() < 5 * error + 1e-3).all())


def test_every_local_target_belongs_to_one_axis_or_is_a_head_shape():
    columns = [c for axis in slider_axes(NAMES) for c in (*axis.increase, *axis.decrease)]
    local = [i for i, name in enumerate(NAMES) if name.startswith("local/")]
    assert len(columns) == len(set(columns))
    assert len(set(local) - set(columns)) == 7
    unpaired = [axis.name for axis in slider_axes(NAMES) if not axis.decrease]
    assert unpaired == ["chin-triangle"]


def test_the_same_generator_state_gives_the_same_people_and_another_seed_gives_others():
    first, again, other = (
        sample_identities(4, torch.Generator().manual_seed(seed), NAMES, SPREADS).sliders for seed in (5, 5, 6)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_consecutive_draws_from_one_generator_differ(rng):
    first, second = (sample_identities(2, rng, NAMES, SPREADS).sliders for _ in range(2))
    assert not torch.equal(first, second)


def test_macro_weights_are_shares(rng):
    people = sample_identities(50, rng, NAMES, SPREADS)
    race = people.sliders[:, [i for i, n in enumerate(NAMES) if n.startswith("race/")]]
    torch.testing.assert_close(race.sum(1), torch.ones(50))
    young_african_woman = people.ancestry[:, 0] * (1 - people.gender) * (1 - people.age)
    torch.testing.assert_close(people.sliders[:, column("race/african-female-young")], young_african_woman)
    strong = people.gender * people.age * people.muscle.clamp(min=0) * (1 - people.weight.abs())
    torch.testing.assert_close(people.sliders[:, column("univ/male-old-maxmuscle-averageweight")], strong)
    assert people.age.max() <= 0.7
    assert people.weight.abs().max() <= 1


def test_left_and_right_are_tied_and_opposites_exclude_each_other(rng):
    drawn = sample_identities(200, rng, NAMES, SPREADS).sliders
    left, right = column("local/l-eye-scale-incr"), column("local/r-eye-scale-incr")
    assert torch.equal(drawn[:, left], drawn[:, right])
    less, more = column("local/nose-hump-decr"), column("local/nose-hump-incr")
    assert not (drawn[:, less] * drawn[:, more]).any()
    signed = drawn[:, more] - drawn[:, less]
    assert 0.13 < float(signed.std()) < 0.21
    signed_names = [name.startswith("field/") for name in NAMES]
    assert float(drawn[:, ~torch.tensor(signed_names)].min()) >= 0
    assert float(drawn[:, torch.tensor(signed_names)].mean(0).abs().max()) < 0.3
    lopsided = drawn[:, column("local/asym-eye-1-l")] - drawn[:, column("local/asym-eye-1-r")]
    assert 0.045 < float(lopsided.std()) < 0.075


def test_expected_sliders_are_the_mean_of_many_draws(rng):
    drawn = sample_identities(20000, rng, NAMES, SPREADS).sliders
    assert_mean_is(expected_sliders(NAMES, SPREADS), drawn)


@pytest.mark.parametrize(("gender", "ancestry"), [(1.0, (0.0, 1.0, 0.0)), (0.25, (0.5, 0.2, 0.3))])
def test_expected_sliders_of_a_group_are_the_mean_of_its_draws(gender, ancestry, rng, monkeypatch):
    expected = expected_sliders(NAMES, SPREADS, gender=gender, ancestry=ancestry)
    weights = sliders._macro_weights

    def of_the_group(names, genders, ancestries, *rest):
        return weights(names, np.full_like(genders, gender), np.tile(ancestry, (len(ancestries), 1)), *rest)

    monkeypatch.setattr(sliders, "_macro_weights", of_the_group)
    drawn = sample_identities(20000, rng, NAMES, SPREADS).sliders
    assert_mean_is(expected, drawn)
    still = drawn[:, [i for i, name in enumerate(NAMES) if name.startswith("mean/")]]
    assert torch.equal(still, still[:1].expand_as(still))


def test_means_of_groups_are_weighted_by_shares_of_ancestry_and_sex(rng):
    people = sample_identities(50, rng, NAMES, SPREADS)
    columns = [i for i, name in enumerate(NAMES) if name.startswith("mean/")]
    assert len(columns) == 6
    torch.testing.assert_close(people.sliders[:, columns].sum(1), torch.ones(50))
    for race, share in zip(("african", "asian", "caucasian"), people.ancestry.unbind(1)):
        for sex, part in (("female", 1 - people.gender), ("male", people.gender)):
            torch.testing.assert_close(people.sliders[:, column(f"mean/{race}-{sex}")], share * part)


def test_given_spreads_are_those_of_the_draws(rng):
    spreads = {"field/tip-z": 0.3, "field/tip-y": 0.0, "nose-hump-decr": 0.05}
    drawn = sample_identities(4000, rng, NAMES, spreads).sliders
    assert float(drawn[:, column("field/tip-z")].std()) == pytest.approx(0.3, rel=0.05)
    assert not drawn[:, [i for i, n in enumerate(NAMES) if n.startswith("field/") and n != "field/tip-z"]].any()
    signed = drawn[:, column("local/nose-hump-incr")] - drawn[:, column("local/nose-hump-decr")]
    assert float(signed.std()) == pytest.approx(0.05, rel=0.05)


def test_held_out_groups_move_in_the_shifted_family_only(rng):
    held_out = held_out_columns()
    assert len(held_out) > 60
    assert not sample_identities(100, rng, NAMES, SPREADS).sliders[:, held_out].any()
    shifted = sample_identities(100, rng, NAMES, SPREADS, family="shifted").sliders[:, held_out]
    assert shifted.any(0).all()


def test_every_held_out_prefix_names_a_slider():
    names = [axis.name for axis in slider_axes(NAMES)]
    assert all(any(name.startswith(prefix) for name in names) for prefix in HELD_OUT)


def test_a_negative_count_is_named(rng):
    with pytest.raises(ValueError, match="n must be at least 0"):
        sample_identities(-1, rng, NAMES, SPREADS)
