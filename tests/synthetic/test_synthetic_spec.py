"""A spec fixes every byte of a set: its hash, its seeds, and what it refuses."""

from dataclasses import replace

import pytest
import torch

from facerecon_torch.synthetic import SyntheticSpec

SPEC = SyntheticSpec(subjects=3, images_per_subject=2, seed=1)


@pytest.mark.parametrize(
    "change", [{"subjects": 4}, {"images_per_subject": 3}, {"seed": 2}, {"size": 320}, {"family": "test"}]
)
def test_every_field_changes_the_hash(change: dict[str, object]) -> None:
    assert replace(SPEC, **change).hash != SPEC.hash
    assert replace(SPEC).hash == SPEC.hash


def test_numbers_depend_on_subject_purpose_family_and_seed_alone() -> None:
    def first(spec: SyntheticSpec, *key: object) -> float:
        return float(torch.rand((), generator=spec.generator(*key)))  # type: ignore[arg-type]

    reference = first(SPEC, 0, "identity")
    assert first(replace(SPEC, subjects=9, images_per_subject=5, size=300), 0, "identity") == reference
    others = [
        first(SPEC, 1, "identity"),
        first(SPEC, 0, "appearance"),
        first(SPEC, 0, "image", 0),
        first(replace(SPEC, seed=2), 0, "identity"),
        first(replace(SPEC, family="test"), 0, "identity"),
    ]
    assert reference not in others
    assert len(set(others)) == len(others)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"subjects": 0}, "subjects"),
        ({"images_per_subject": -1}, "images_per_subject"),
        ({"size": 60}, "size"),
        ({"family": "valid"}, "family"),
    ],
)
def test_bad_specs_are_refused_by_name(change: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        SyntheticSpec(**{"subjects": 1, "images_per_subject": 1, **change})  # type: ignore[arg-type]


def test_subject_ids_of_families_never_meet() -> None:
    ids = {replace(SPEC, family=f).subject_id(s) for f in ("train", "test", "shifted") for s in range(3)}
    assert len(ids) == 9
