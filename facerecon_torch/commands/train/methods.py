"""The methods that every report compares, trained on one set of people and measured on others."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.cascade.start import mean_face, retraction
from facerecon_torch.commands.train.first_stage import FirstStageCache, SplitState, TrainSetup
from facerecon_torch.commands.train.perturbed import PerturbedState
from facerecon_torch.commands.train.samples import Samples
from facerecon_torch.evaluation.errors import MethodErrors, SetErrors, method_errors
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.expression_error import ExpressionError, fit_expression_error
from facerecon_torch.regression.cascade import Cascade, StageReport, train_cascade
from facerecon_torch.regression.moments import Moments, SampleGram
from facerecon_torch.regression.ridge import choose_form
from facerecon_torch.runtime.precision import in_own_precision
from facerecon_torch.runtime.ranks import SINGLE, Ranks
from facerecon_torch.structures import FaceParameters

__all__ = [
    "CASCADES",
    "METHODS",
    "CascadeFit",
    "Outcome",
    "TrainSetup",
    "baseline",
    "bias_fit",
    "fit_cascade",
    "learned_from",
    "shape_error",
    "train_methods",
]

_log = logging.getLogger(__name__)
CASCADES: dict[str, tuple[str, ...]] = {"ld_only": ("ld",), "hog_only": ("hog",), "cascade": ("hog", "ld")}
METHODS = ("mean_face", "landmark_fit", "landmark_fit_bias", *CASCADES)
_ERROR_VERTICES = 2**22  # whose distances are in memory at once: 50 MB of float32
_SELECTION_VERTICES = 200  # of the whole face, evenly spread over the list: enough to rank penalties


@dataclass(frozen=True)
class Outcome:
    """A trained cascade, its stages, and the errors of every method on every set, of the samples of all processes in
    the order of the data set."""

    reconstructor: FaceReconstructor
    stages: list[dict[str, Any]]
    errors: dict[str, SetErrors]


@in_own_precision
def train_methods(
    setup: TrainSetup,
    train: Samples,
    tests: Mapping[str, Samples],
    *,
    names: tuple[str, ...] = METHODS,
    first_stages: FirstStageCache | None = None,
) -> Outcome:
    """The cascade trained on `train`, and the errors of all methods on every set of `tests`.

    Args:
        setup: model, landmark fit, features and cascade.
        train: this process's training samples. Every cascade chooses its own penalties on them.
        tests: the stages of `cascade` are reported with the error on the first of these sets after each of them.
        names: of the methods.
        first_stages: shared with other calls for the same sets; it also holds the processes that train together. All
            get the same cascade and errors.
    """
    cache = FirstStageCache() if first_stages is None else first_stages
    state = cache.split(setup, train)
    learned = learned_from(setup, state)
    targets = {name: cache.split(setup, samples) for name, samples in tests.items()}
    errors: dict[str, dict[str, MethodErrors]] = {name: {} for name in tests}
    shipped = CascadeFit(Cascade(()), [], None, {})
    for name in names:
        if name in CASCADES:
            blocks = tuple(setup.spec.features.blocks) if name == "cascade" else CASCADES[name]
            fit = fit_cascade(setup, learned, targets, blocks)
            estimates = fit.estimates
            shipped = fit if name == "cascade" else shipped
        else:
            estimates = baseline(name, setup.model, state, targets)
        for which, estimate in estimates.items():
            own = method_errors(setup.model, estimate, tests[which])
            errors[which][name] = own.gathered(targets[which].order)
    measured = {
        k: SetErrors.of(errors[k], samples.subjects, samples.kinds, targets[k].order) for k, samples in tests.items()
    }
    reconstructor = FaceReconstructor(
        setup.model, shipped.cascade, setup.spec, expression_error=shipped.expression_error
    )
    return Outcome(reconstructor, shipped.stages, measured)


def learned_from(setup: TrainSetup, train: SplitState) -> SplitState:
    """The training samples of cascades, with copies that start elsewhere where these are asked for."""
    copies = setup.perturbation.copies
    return PerturbedState(train.samples, train.first, setup.perturbation) if copies else train


def baseline(
    name: str, model: FaceModel, train: SplitState, tests: Mapping[str, SplitState]
) -> dict[str, FaceParameters]:
    """The estimates on every set of `tests` by mean_face, landmark_fit or landmark_fit_bias; the last learns its
    constant on `train`."""
    if name == "mean_face":
        return {k: mean_face(model, len(test.samples)) for k, test in tests.items()}
    if name == "landmark_fit":
        return {k: test.fitted for k, test in tests.items()}
    constant = bias_fit(train.fitted.flat, train.samples.parameters.flat, train.order.ranks)
    fix = retraction(model)
    return {
        k: FaceParameters.from_flat(fix(test.fitted.flat + constant), model.n_identity) for k, test in tests.items()
    }


def bias_fit(
    start: Float[Tensor, "n parameters"], target: Float[Tensor, "n parameters"], ranks: Ranks = SINGLE
) -> Float[Tensor, "parameters"]:
    """The mean training residual of the landmark fit over all processes: the constant of `landmark_fit_bias`."""
    total = (target - start).sum(dim=0, dtype=torch.float64)
    both = ranks.add_(torch.cat([total, total.new_tensor([float(len(start))])]))
    return (both[:-1] / both[-1]).to(start.dtype)


@dataclass(frozen=True)
class CascadeFit:
    """A trained cascade, its stages, the error of its beta (None: not cross-fitted), and its estimates on every set."""

    cascade: Cascade
    stages: list[dict[str, Any]]
    expression_error: ExpressionError | None
    estimates: dict[str, FaceParameters]


def fit_cascade(
    setup: TrainSetup, train: SplitState, tests: Mapping[str, SplitState], blocks: tuple[str, ...]
) -> CascadeFit:
    """The cascade on some feature blocks, trained on `train`; the sets of `tests` follow it stage by stage."""
    training = _CascadeTraining(setup, train, tests, blocks)
    cascade = training.run()
    estimates = {k: FaceParameters.from_flat(v.shape(v.x), setup.model.n_identity) for k, v in tests.items()}
    return CascadeFit(cascade, training.stages, training.expression_error, estimates)


class _CascadeTraining:
    """The training of one cascade on some feature blocks; the test sets follow it stage by stage."""

    def __init__(
        self, setup: TrainSetup, train: SplitState, tests: Mapping[str, SplitState], blocks: tuple[str, ...]
    ) -> None:
        self.setup, self.train, self.tests = setup, train, tests
        self.features = replace(setup.spec.features, blocks=blocks)
        self.stages: list[dict[str, Any]] = []
        self.expression_error: ExpressionError | None = None  # of the answers to people left out
        for split in (train, *tests.values()):
            split.begin(blocks)

    def run(self) -> Cascade:
        """The trained cascade; afterwards the x of every test set are its answers."""
        setup, train = self.setup, self.train
        spec, ridge = setup.cascade, setup.cascade.ridge
        sizes = self.features.block_sizes
        # Relative weights are searched only where there are several blocks.
        grid = ridge.block_weights_grid if len(sizes) > 1 else None
        error = shape_error(setup.model, train.samples, _SELECTION_VERTICES, ranks=train.order.ranks)
        cascade, _ = train_cascade(
            train.observe,
            train.x,
            train.target,
            train.samples.subjects.to(setup.model.device),
            lambda x: error(train.shape(x)),
            replace(spec, ridge=replace(ridge, block_sizes=sizes, block_weights_grid=grid)),
            retract=train.retract,
            on_stage=self._on_stage,
            on_answers=self._on_answers if spec.cross_fit else None,
            first=self._first_moments(),
            ranks=train.order.ranks,
        )
        return cascade

    def _first_moments(self) -> SampleGram | Moments | None:
        """The second moments of the first stage's features, in the form that its ridge takes."""
        train, ridge, device = self.train, self.setup.cascade.ridge, self.setup.model.device
        n, blocks = len(train.order), len(self.features.blocks)
        form = choose_form(n, self.features.length, ridge.form, blocks=blocks, memory=ridge.memory, device=device)
        # Processes may have different amounts of memory left.
        return train.gram() if train.order.ranks.share(form) == "dual" else train.moments()

    def _on_answers(self, x: Tensor) -> None:
        model, truth = self.setup.model, self.train.samples.parameters
        if not model.n_expression:  # as of a model of faces at rest
            return
        estimate = FaceParameters.from_flat(self.train.shape(x), model.n_identity)
        seen, true = (model.normalised_expression(one.expression) - model.named.origin for one in (estimate, truth))
        error = fit_expression_error(
            seen, true, model.named.directions, model.expression_variance, self.train.order.ranks
        )
        self.expression_error = ExpressionError(**{f.name: getattr(error, f.name).cpu() for f in fields(error)})

    def _on_stage(self, k: int, cascade: Cascade, report: StageReport) -> None:
        moved = {name: test.stepped(cascade, k) for name, test in self.tests.items()}
        test_mae = None
        if self.tests:
            name, test = next(iter(self.tests.items()))
            error = shape_error(self.setup.model, test.samples, ranks=test.order.ranks)
            test_mae = float(error(test.shape(moved[name])))
        if self.train.order.ranks.is_first:
            _log.info(
                "%s, stage %d: relative penalty %s, cross-fitted %s mm, test %s mm, %s", "+".join(self.features.blocks),
                k + 1, report.relative_penalty, report.cross_fitted_error, test_mae,
                "kept" if report.kept else "dropped",
            )  # fmt: skip
        self.stages.append(_stage_entry(k, report, test_mae, cross_fit=self.setup.cascade.cross_fit))
        if report.kept:
            for name, test in self.tests.items():
                test.x = moved[name]


def _stage_entry(k: int, report: StageReport, test_mae: float | None, *, cross_fit: bool) -> dict[str, Any]:
    return {
        "stage": k + 1,
        "relative_penalty": report.relative_penalty,
        "block_weights": list(report.block_weights),
        "start_mae_mm": report.start_error,
        "cross_fitted_mae_mm": report.cross_fitted_error,
        "in_sample_mae_mm": report.in_sample_error,
        "training_vertices": _SELECTION_VERTICES,  # of the whole face: what the three errors above were taken on
        "test_mae_mm": test_mae,
        "kept": report.kept,
        "update": "cross-fitted" if cross_fit else "in-sample",
        "form": report.form,
        "path": [
            {
                "relative_penalty": point.relative_penalty,
                "block_weights": list(point.block_weights),
                "error_mm": point.error,
            }
            for point in report.path
        ],
        "seconds": round(report.seconds, 3),
    }


def shape_error(
    model: FaceModel, samples: Samples, vertices: int | None = None, *, ranks: Ranks = SINGLE
) -> Callable[[Tensor], Tensor]:
    """x -> MAE in mm against M over the samples of all processes, no alignment (Eq. 15): whole face, or `vertices` of
    it, evenly spread."""
    whole = model.whole_topology("choosing penalties needs a whole model").whole_vertices
    if vertices is not None and vertices < len(whole):
        whole = whole[
            torch.linspace(0, len(whole) - 1, vertices, dtype=torch.float32, device=whole.device).round().long()
        ]
    small = model.restrict(whole)
    size = max(1, _ERROR_VERTICES // len(whole))
    parts = [slice(k, min(k + size, len(samples))) for k in range(0, len(samples), size)]
    like = model.identity_mean
    # Few vertices are read once and held for all calls; the whole face is read on every call.
    held = [samples.true_meshes(part, like, whole) for part in parts] if vertices is not None else None

    def error(flat: Tensor) -> Tensor:
        parameters = FaceParameters.from_flat(flat, model.n_identity)
        total = torch.zeros(2, dtype=torch.float64, device=flat.device)
        for k, part in enumerate(parts):
            truth = samples.true_meshes(part, like, whole) if held is None else held[k]
            gap = small.vertices(parameters.identity[part], parameters.expression[part]) - truth
            total[0] += torch.linalg.vector_norm(gap, dim=-1).sum(dtype=torch.float64)
        total[1] = len(flat) * len(whole)
        ranks.add_(total)
        return total[0] / total[1]

    return error
