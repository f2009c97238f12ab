"""Drawn people: the distribution of DESIGN's sampling, its determinism, and the held-out slider groups."""

import pytest
import torch

from facerecon_torch.model.default_face import load_source
from facerecon_torch.model.default_face.sliders import HELD_OUT, expected_sliders, sample_identities, slider_axes

NAMES = load_source().identity_names


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
        sample_identities(4, torch.Generator().manual_seed(seed), NAMES).sliders for seed in (5, 5, 6)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_consecutive_draws_from_one_generator_differ(rng):
    assert not torch.equal(sample_identities(2, rng, NAMES).sliders, sample_identities(2, rng, NAMES).sliders)


def test_macro_weights_are_shares(rng):
    people = sample_identities(50, rng, NAMES)
    race = people.sliders[:, [i for i, n in enumerate(NAMES) if n.startswith("race/")]]
    torch.testing.assert_close(race.sum(1), torch.ones(50))
    young_african_woman = people.ancestry[:, 0] * (1 - people.gender) * (1 - people.age)
    torch.testing.assert_close(people.sliders[:, column("race/african-female-young")], young_african_woman)
    strong = people.gender * people.age * people.muscle.clamp(min=0) * (1 - people.weight.abs())
    torch.testing.assert_close(people.sliders[:, column("univ/male-old-maxmuscle-averageweight")], strong)
    assert people.age.max() <= 0.7
    assert people.weight.abs().max() <= 1


def test_left_and_right_are_tied_and_opposites_exclude_each_other(rng):
    sliders = sample_identities(200, rng, NAMES).sliders
    left, right = column("local/l-eye-scale-incr"), column("local/r-eye-scale-incr")
    assert torch.equal(sliders[:, left], sliders[:, right])
    less, more = column("local/nose-hump-decr"), column("local/nose-hump-incr")
    assert not (sliders[:, less] * sliders[:, more]).any()
    signed = sliders[:, more] - sliders[:, less]
    assert 0.13 < float(signed.std()) < 0.21
    assert float(sliders.min()) >= 0
    lopsided = sliders[:, column("local/asym-eye-1-l")] - sliders[:, column("local/asym-eye-1-r")]
    assert 0.045 < float(lopsided.std()) < 0.075


def test_expected_sliders_are_the_mean_of_many_draws(rng):
    mean = sample_identities(20000, rng, NAMES).sliders.mean(0)
    assert float((mean - expected_sliders(NAMES)).abs().max()) < 0.006


def test_held_out_groups_move_in_the_shifted_family_only(rng):
    held_out = held_out_columns()
    assert len(held_out) > 60
    assert not sample_identities(100, rng, NAMES).sliders[:, held_out].any()
    shifted = sample_identities(100, rng, NAMES, family="shifted").sliders[:, held_out]
    assert shifted.any(0).all()


def test_every_held_out_prefix_names_a_slider():
    names = [axis.name for axis in slider_axes(NAMES)]
    assert all(any(name.startswith(prefix) for name in names) for prefix in HELD_OUT)


def test_a_negative_count_is_named(rng):
    with pytest.raises(ValueError, match="n must be at least 0"):
        sample_identities(-1, rng, NAMES)
