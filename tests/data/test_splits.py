import pytest
import torch

from facerecon_torch.data.splits import check_disjoint, group_folds, paper_folds


def subjects_of(people: int, images: int) -> torch.Tensor:
    return torch.arange(people).repeat_interleave(images)


def test_group_folds_partition_the_people(rng):
    subjects = subjects_of(13, 3)
    folds = group_folds(subjects, 5, rng)
    tested = torch.cat([fold.test for fold in folds])
    assert torch.equal(tested.sort().values, torch.arange(39))
    for fold in folds:
        check_disjoint(subjects[fold.train], subjects[fold.test])
        assert len(fold.train) + len(fold.test) == 39


def test_paper_folds_are_five_disjoint_groups_of_five(rng):
    subjects = subjects_of(105, 2)
    folds = paper_folds(subjects, rng)
    people = [set(subjects[fold.test].tolist()) for fold in folds]
    assert [len(p) for p in people] == [5] * 5
    assert len(set.union(*people)) == 25
    assert all(len(set(subjects[fold.train].tolist())) == 100 for fold in folds)


def test_folds_depend_on_the_generator_only(rng):
    subjects = subjects_of(30, 2)
    first = group_folds(subjects, 3, torch.Generator().manual_seed(4))
    again = group_folds(subjects, 3, torch.Generator().manual_seed(4))
    other = group_folds(subjects, 3, torch.Generator().manual_seed(5))
    assert all(torch.equal(a.test, b.test) for a, b in zip(first, again))
    assert not all(torch.equal(a.test, b.test) for a, b in zip(first, other))


def test_too_few_people_are_refused(rng):
    with pytest.raises(ValueError, match="more than 25 subjects; this set has 25"):
        paper_folds(subjects_of(25, 2), rng)
    with pytest.raises(ValueError, match="between 2 and the number of subjects"):
        group_folds(subjects_of(3, 2), 4, rng)


def test_a_subject_on_both_sides_is_refused():
    with pytest.raises(ValueError, match=r"2 do, among them \[3, 4\]"):
        check_disjoint(torch.tensor([1, 3, 4, 4]), torch.tensor([3, 4, 7]))
