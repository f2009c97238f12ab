"""Drawn people: the distribution of DESIGN's sampling, its determinism, and the held-out slider groups."""

import pytest
import torch

from facerecon_torch.model.default_face import load_source
from facerecon_torch.model.default_face.sliders import (
    ASYMMETRY_SD,
    FIELD,
    HELD_OUT,
    LOCAL_SD,
    MEAN,
    axis_spreads,
    expected_sliders,
    sample_identities,
    slider_axes,
)

NAMES, SPREADS = load_source().identity_names, load_source().spreads


def column(name: str) -> int:
    return NAMES.index(name)


def held_out_columns() -> list[int]:
    axes = [axis for axis in slider_axes(NAMES) if axis.held_out]
    return [c for axis in axes for c in (*axis.increase, *axis.decrease)]


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
    assert not torch.equal(
        sample_identities(2, rng, NAMES, SPREADS).sliders, sample_identities(2, rng, NAMES, SPREADS).sliders
    )


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
    sliders = sample_identities(200, rng, NAMES, SPREADS).sliders
    left, right = column("local/l-eye-scale-incr"), column("local/r-eye-scale-incr")
    assert torch.equal(sliders[:, left], sliders[:, right])
    less, more = column("local/nose-hump-decr"), column("local/nose-hump-incr")
    assert not (sliders[:, less] * sliders[:, more]).any()
    signed = sliders[:, more] - sliders[:, less]
    assert abs(float(signed.std()) / SPREADS["nose-hump-decr"] - 1) < 0.2
    fields = torch.tensor([name.startswith(FIELD) for name in NAMES])
    assert float(sliders[:, ~fields].min()) >= 0
    assert (sliders[:, fields].amin(0) < 0).all()
    lopsided = sliders[:, column("local/asym-eye-1-l")] - sliders[:, column("local/asym-eye-1-r")]
    assert abs(float(lopsided.std()) / SPREADS["asym-eye-1-l"] - 1) < 0.2


def test_expected_sliders_are_the_mean_of_many_draws(rng):
    sliders = sample_identities(20000, rng, NAMES, SPREADS).sliders
    gap = (sliders.mean(0) - expected_sliders(NAMES, SPREADS)).abs()
    fields = torch.tensor([name.startswith(FIELD) for name in NAMES])
    assert float(gap[~fields].max()) < 0.006
    assert float((gap / sliders.std(0).clamp_min(1e-6))[fields].max()) < 5 * 20000**-0.5  # five standard errors


def test_expected_sliders_of_a_group_have_its_shares_alone():
    sliders = expected_sliders(NAMES, SPREADS, gender=1.0, ancestry=(0.0, 1.0, 0.0))
    means = {name: float(sliders[column(name)]) for name in NAMES if name.startswith(MEAN)}
    assert means == {name: float(name == "mean/asian-male") for name in means}
    assert len(means) == 6


def test_means_are_weighted_by_ancestry_and_sex(rng):
    people = sample_identities(50, rng, NAMES, SPREADS)
    expected = people.ancestry[:, 2] * (1 - people.gender)
    torch.testing.assert_close(people.sliders[:, column("mean/caucasian-female")], expected)


def test_spreads_of_an_unknown_slider_are_those_of_its_kind():
    names = ("local/nose-hump-decr", "local/nose-hump-incr", "local/asym-eye-1-l", "local/asym-eye-1-r")
    assert axis_spreads(names, {}) == {"nose-hump-decr": LOCAL_SD, "asym-eye-1-l": ASYMMETRY_SD}
    assert axis_spreads(names, {"nose-hump-decr": 0.3})["nose-hump-decr"] == 0.3


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
