"""Training from given crops: one fold and all folds, in memory and streamed."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from facerecon_torch.commands.train.first_stage import FirstStageCache, TrainSetup
from facerecon_torch.commands.train.methods import Outcome, train_methods
from facerecon_torch.commands.train.samples import Samples
from facerecon_torch.data.splits import group_folds, paper_folds
from facerecon_torch.features.joint import JointSpec
from facerecon_torch.regression import CascadeSpec
from facerecon_torch.runtime.memory import UNBOUNDED, MemoryBudget

from ..case import Case, Context, Group
from .bench_ridge import operations
from .data import default_model
from .training_set import Size, make_samples, make_setup

TITLE = (
    "training from given crops: D = 32,868, fitting=marching, its penalties given; the penalty chosen among 17 "
    "by exact leave one person out; rendered faces of the model itself, errors in mm on other people"
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"images": [36], "people": 6, "stages": [1], "all_images": 0, "all_people": 0},
    "quick": {"images": [144], "people": 12, "stages": [2], "all_images": 0, "all_people": 0},
    "small": {"images": [240, 480], "people": 40, "stages": [1, 5], "all_images": 480, "all_people": 40},
    "full": {"images": [1260], "people": 105, "stages": [1, 5], "all_images": 4666, "all_people": 105},
}
_TEST_PEOPLE, _TEST_IMAGES = 5, 60
_NAMES = ("mean_face", "landmark_fit", "cascade")
_LARGEST_ON_CPU = 1500  # images of all folds, without a GPU


def groups(context: Context) -> Iterator[Group]:
    """One fold over N and stages, then all folds."""
    model = default_model(context.device, context.dtype)
    features = JointSpec()
    test = make_samples(model, Size(_TEST_IMAGES, _TEST_PEOPLE, seed=99), features.hog)
    for images in context.list("images"):
        train = make_samples(model, Size(images, int(context.sizes["people"])), features.hog)
        for stages in context.list("stages"):
            setup = make_setup(model, _forced(stages))
            cases = [_fold(f"{stages} stages, all kept", setup, train, test)]
            if stages == max(context.list("stages")):
                default = make_setup(model, CascadeSpec(stages=stages))
                cases += [
                    _fold(f"up to {stages} stages, cross-fitted (the default)", default, train, test),
                    _fold(f"{stages} stages, all kept, features streamed", setup, train, test, streamed=True),
                ]
            floor = stages * operations(images, features.length, 75)
            yield Group(name=f"one fold, {images} images, {stages} stages", axis="N", x=images, rounds=3, cases=cases,
                        expected_s=30 * floor / (1e9 * context.rate), longest_s=30)  # fmt: skip
    if context.sizes["all_images"]:
        yield _all_folds(context, features)


def _forced(stages: int) -> CascadeSpec:
    """All stages are fitted and kept: in-sample updates; penalties are chosen as ever."""
    return CascadeSpec(stages=stages, cross_fit=False)


def _fold(name: str, setup: TrainSetup, train: Samples, test: Samples, *, streamed: bool = False) -> Case:
    n, d = len(train), setup.spec.features.length
    stages = setup.cascade.stages

    def run() -> Outcome:
        # A budget of nothing makes every stage read its features in chunks, again and again.
        first_stages = FirstStageCache(MemoryBudget(0.0, float("inf")) if streamed else UNBOUNDED)
        return train_methods(setup, train, {"test": test}, names=_NAMES, first_stages=first_stages)

    return Case(
        name=name,
        run=run,
        items=n,
        unit="image",
        operations=stages * operations(n, d),
        formula="stages x (N^2 D + 2 N D T + N^3 / 3 + 2 N^2 T)" if n < d else "stages x (N D^2 + 2 N D T + D^3 / 3)",
        bytes=float(stages * 2 * n * d * train.landmarks.element_size()),  # features written once, read once
        error=lambda outcome: _errors([outcome], n),
        limits={"cascade : mean face": 1.0} if n >= 200 else {},
    )


def _errors(outcomes: list[Outcome], images: int) -> dict[str, float]:
    def mae(name: str) -> float:
        values = [outcome.errors["test"].methods[name].mae["none", "M", "whole"] for outcome in outcomes]
        return float(torch.cat(values).mean())

    found = {f"{name}, test MAE in mm": mae(name) for name in _NAMES}
    found["cascade : mean face"] = found["cascade, test MAE in mm"] / found["mean_face, test MAE in mm"]
    kept = [sum(bool(stage["kept"]) for stage in outcome.stages) for outcome in outcomes]
    return found | {"stages kept": sum(kept) / len(kept)}


def _all_folds(context: Context, features: JointSpec) -> Group:
    """5 x (all but 5 people / 5 people) as the paper has it, in one process that shares what folds share."""
    images, subjects = int(context.sizes["all_images"]), int(context.sizes["all_people"])
    if context.on_cpu and images > _LARGEST_ON_CPU:
        reason = f"left out on a CPU: {images} images; ask with all_images={_LARGEST_ON_CPU}"
        case = Case(name="5 folds, 5 stages", run=lambda: None, missing=reason)
        return Group(name=f"all folds, {images} images", cases=[case])
    stages = max(context.list("stages"))
    model = default_model(context.device, context.dtype)
    people = make_samples(model, Size(images, subjects), features.hog)
    draw: Callable[..., Any] = paper_folds if subjects > 25 else lambda s, g: group_folds(s, 5, g)
    folds = draw(people.subjects, torch.Generator().manual_seed(0))
    setup = make_setup(model, _forced(stages))

    def run() -> list[Outcome]:
        cache = FirstStageCache()
        return [
            train_methods(setup, people[fold.train], {"test": people[fold.test]}, names=_NAMES, first_stages=cache)
            for fold in folds
        ]

    floor = stages * sum(operations(len(fold.train), features.length) for fold in folds)
    case = Case(
        name=f"{len(folds)} folds, {stages} stages, all kept",
        run=run,
        items=len(folds) * images,
        unit="image and fold",
        operations=floor,
        formula="sum over folds of stages x (N^2 D + 2 N D T + N^3 / 3 + 2 N^2 T), N of its training images",
        error=lambda outcomes: _errors(outcomes, images),
        limits={"cascade : mean face": 1.0} if images >= 200 else {},
    )
    return Group(name=f"all folds, {images} images", cases=[case], rounds=2, longest_s=10,
                 expected_s=20 * floor / (1e9 * context.rate))  # fmt: skip
