"""Several processes train what one trains."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.commands.train import first_stage
from facerecon_torch.commands.train import train as training_run
from facerecon_torch.commands.train.first_stage import FirstStageCache, choose_penalties
from facerecon_torch.commands.train.methods import train_methods
from facerecon_torch.commands.train.samples import rows_of_rank
from facerecon_torch.commands.train.train import cross_validate, make_splits
from facerecon_torch.data.splits import CvSpec
from facerecon_torch.evaluation.errors import SetErrors
from facerecon_torch.runtime.memory import MemoryBudget
from facerecon_torch.runtime.ranks import SINGLE, GatherOrder, Ranks
from tests.thread_ranks import together
from tests.tiny_world import make_samples, make_setup

SETS = ("train", "test")


@pytest.fixture(scope="module")
def world():
    """(setup, train, test) in float64: what differs then is a mistake, not rounding. The test set has fewer people than
    there are processes."""
    setup = make_setup()
    train = make_samples(setup, people=7, images=2, seed=1)
    test = make_samples(setup, people=2, images=2, seed=2, first_subject=100)
    setup.model.to(torch.float64)
    mixed = torch.randperm(len(train), generator=torch.Generator().manual_seed(3))
    return setup, alone(train, mixed), alone(test, torch.arange(len(test)))


def alone(samples, rows):
    """Some samples as a set of their own, in float64."""
    some = samples[rows]
    return replace(
        some,
        landmarks=some.landmarks.double(),
        parameters=some.parameters.to(torch.float64),
        table=some.table[some.rows],
        rows=torch.arange(len(rows)),
        whole=None,
    )


def own_part(samples, ranks):
    return alone(samples, rows_of_rank(samples.subjects, ranks))


def train_on(world, ranks, form, names):
    setup, train, test = world
    setup = replace(setup, cascade=replace(setup.cascade, ridge=replace(setup.cascade.ridge, form=form)))
    parts = own_part(train, ranks), {"test": own_part(test, ranks)}
    return train_methods(setup, *parts, names=names, first_stages=FirstStageCache(ranks=ranks))


@pytest.mark.parametrize(
    ("form", "names"),
    [("dual", ("landmark_fit_bias", "cascade")), ("primal", ("ld_only",))],
    ids=["dual", "primal"],
)
def test_three_processes_train_what_one_trains(world, form, names):
    one, *others = train_on(world, SINGLE, form, names), *together(3, lambda ranks: train_on(world, ranks, form, names))
    for several in others:
        for name in names:
            for key, expected in one.errors["test"].methods[name].mae.items():
                assert_close(several.errors["test"].methods[name].mae[key], expected)
        for a, b in zip(several.reconstructor.cascade.stages, one.reconstructor.cascade.stages, strict=True):
            assert_close(a.ridge.weight, b.ridge.weight, rtol=1e-6, atol=1e-9)
        for a, b in zip(several.reconstructor.cascade.stages, others[0].reconstructor.cascade.stages, strict=True):
            assert torch.equal(a.ridge.weight, b.ridge.weight)
        ours, theirs = (outcome.reconstructor.expression_error for outcome in (several, one))
        assert (ours is None) == (theirs is None) == ("cascade" not in names)
        for name in () if ours is None else ("offset", "gain", "covariance", "penalty"):
            assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-6, atol=1e-6)
        for a, b in zip(several.stages, one.stages, strict=True):
            exact = ("relative_penalty", "form", "kept", "update")
            assert [a[key] for key in exact] == [b[key] for key in exact]
            for tried, other in zip(a["path"], b["path"], strict=True):
                assert tried.keys() == other.keys()
                for key in tried:
                    if tried[key] is None or other[key] is None:
                        assert tried[key] is other[key], key
                    else:
                        assert tried[key] == pytest.approx(other[key], rel=1e-9, abs=1e-9), key
            for key in a.keys() - {"seconds", "path", *exact}:
                assert a[key] == pytest.approx(b[key], rel=1e-9, abs=1e-9), key


def test_folds_and_errors_do_not_depend_on_the_processes(world, monkeypatch):
    setup, train, _ = world
    few = partial(train_methods, names=("landmark_fit", "ld_only"))
    monkeypatch.setattr(training_run, "train_methods", few)

    def run(ranks):
        generator = torch.Generator().manual_seed(5)
        errors = cross_validate(setup, own_part(train, ranks), 2, generator, FirstStageCache(ranks=ranks))
        return errors, errors.report(generator)

    expected, report = run(SINGLE)
    for pooled, own in together(2, run):
        assert pooled.subjects.tolist() == expected.subjects.tolist()
        for method, errors in own["comparisons"]["interval_mm"].items():
            wanted = report["comparisons"]["interval_mm"][method]["none"]
            assert errors["none"] == pytest.approx(wanted), method


def test_penalties_are_chosen_on_everybodys_faces(world, monkeypatch):
    setup, train, _ = world
    monkeypatch.setattr(first_stage, "IDENTITY_GRID", (256.0, 4.0))  # one process has nothing to try
    monkeypatch.setattr(first_stage, "EXPRESSION_GRID", (64.0, 4.0))
    expected = choose_penalties(setup.model, train, setup.spec.fit)
    found = together(3, lambda ranks: choose_penalties(setup.model, own_part(train, ranks), setup.spec.fit, ranks))
    assert found == [expected] * 3


def test_processes_of_unequal_size_hold_and_forget_alike(world):
    setup, train, _ = world
    other = replace(setup, spec=replace(setup.spec, fit=replace(setup.spec.fit, identity_penalty=5.0)))
    ten = MemoryBudget(4.0 * 10 * setup.spec.features.length * 8)  # rows of float64; the processes have 6, 4 and 4

    def run(ranks):
        part, cache = own_part(train, ranks), FirstStageCache(ten, ranks)
        held = [cache.split(each, part).first.held > 0 for each in (setup, other)]
        return len(part), held, [key[1] for key in cache._stages]

    assert together(3, run) == [(n, [True, True], [other.spec.fit]) for n in (6, 4, 4)]


def splits(world, ranks, cv, test):
    samples = {"train": own_part(world[1], ranks), "test": own_part(test, ranks)}
    return make_splits(cv, samples, torch.Generator().manual_seed(0), ranks)


def test_a_process_without_test_people_tests_on_nobody(world):
    def run(ranks):
        ((_, train_side, test_side),) = splits(world, ranks, CvSpec(fold=0, folds=2), world[2])
        return len(train_side), test_side.subjects.tolist()

    trained, tested = zip(*together(3, run), strict=True)
    assert 0 < sum(trained) < len(world[1])
    assert tested == ([100, 100], [101, 101], [])


def test_nobody_trains_on_one_process_and_is_tested_on_another(world):
    train = world[1]
    test = alone(train, torch.nonzero(train.subjects == 4).flatten())  # process 0 tests on whom process 1 trains on
    said = []

    def run(ranks):
        with pytest.raises(ValueError, match="both sides"):
            splits(world, ranks, CvSpec(), test)
        said.append(ranks.rank)

    together(3, run)
    assert sorted(said) == [0, 1, 2]


def test_every_subject_stands_on_one_process():
    subjects = torch.tensor([9, 3, 9, 5, 3, 7, 5, 9])
    parts = [rows_of_rank(subjects, Ranks(rank, 3)) for rank in range(3)]
    assert [subjects[rows].tolist() for rows in parts] == [[3, 3, 9, 9, 9], [5, 5], [7]]
    assert sorted(torch.cat(parts).tolist()) == list(range(8))


def test_rows_and_classes_come_back_in_the_order_of_the_set(world):
    samples = replace(world[1], places=torch.arange(len(world[1])), kinds=tuple("abcdefghijklmn"))

    def gather(ranks):
        places = torch.arange(ranks.rank, 7, 3).flip(0) if ranks.rank < 2 else torch.arange(0)
        order = GatherOrder.of(places, ranks)
        part = samples[places]
        return SetErrors.of({}, part.subjects, part.kinds, order), order.gather(10 * places), len(order)

    for errors, rows, count in together(3, gather):
        assert errors.kinds == ("a", "b", "d", "e", "g")
        assert errors.subjects.tolist() == samples.subjects[[0, 1, 3, 4, 6]].tolist()
        assert rows.tolist() == [0, 10, 30, 40, 60]
        assert count == 5
