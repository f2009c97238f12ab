"""The first stage of whole sets (landmark fits, features, moments), shared by all methods and folds; its splits."""

import logging
from dataclasses import dataclass, field, replace
from threading import Lock

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.cascade.checkpoint import ReconstructorSpec
from facerecon_torch.cascade.observe import FaceObserver, select_blocks
from facerecon_torch.cascade.start import Perturbation, mean_face, retraction
from facerecon_torch.commands.train.samples import Samples
from facerecon_torch.features.joint import JointSpec
from facerecon_torch.fitting.landmark_fit import FitSpec, LandmarkFitter
from facerecon_torch.fitting.penalties import (
    EXPRESSION_GRID,
    IDENTITY_GRID,
    evaluation_faces,
    select_contour_weight,
    select_penalties,
)
from facerecon_torch.model.base import FaceModel
from facerecon_torch.regression.cascade import Cascade, CascadeSpec, Retract
from facerecon_torch.regression.moments import (
    Features,
    Moments,
    SampleGram,
    compute_moments,
    compute_sample_gram,
    select_rows,
)
from facerecon_torch.runtime.memory import UNBOUNDED, MemoryBudget
from facerecon_torch.runtime.ranks import SINGLE, Ranks

__all__ = ["BLOCKS", "FirstStage", "FirstStageCache", "SplitState", "TrainSetup", "choose_penalties"]

_log = logging.getLogger(__name__)
BLOCKS = ("hog", "ld")
_KEPT = 8  # first stages of whole sets that are kept; folds rarely choose more penalties


@dataclass(frozen=True)
class TrainSetup:
    """The settings of a training run without its data: face model, features and crops, stages."""

    model: FaceModel
    spec: ReconstructorSpec
    cascade: CascadeSpec
    perturbation: Perturbation = field(default_factory=Perturbation)


class FirstStage:
    """The first stage of a whole set under one landmark fit: parameters x, cameras, and the features of all blocks.

    `counts` are the samples of each process; `held` the bytes of features that the process with the most samples keeps,
    0: features are computed in chunks on every pass.
    """

    def __init__(
        self, setup: TrainSetup, samples: Samples, cache: "FirstStageCache", counts: Int[Tensor, "ranks"], *, held: int
    ) -> None:
        self.samples, self.memory, self.ranks, self.counts, self.held = samples, cache.memory, cache.ranks, counts, held
        self.spec, self.n_identity = replace(setup.spec.features, blocks=BLOCKS), setup.model.n_identity
        self.bias, self.model = setup.cascade.ridge.bias, setup.model
        self.fitter = LandmarkFitter(setup.model, setup.spec.fit)
        fit = self.fitter.fit(samples.landmarks)
        self.fitted, self.camera = fit.parameters, fit.camera
        self.x = (fit.parameters if setup.spec.start == "landmark_fit" else mean_face(setup.model, len(samples))).flat
        observer = self.observer(None, BLOCKS)
        self.features = observer.features(self.x) if held else observer.source(self.x)
        self._gram: SampleGram | None = None
        self._moments: Moments | None = None
        self._lock = Lock()  # folds may run on threads: the first one computes what all share

    def observer(
        self,
        rows: Int[Tensor, "rows"] | None,
        blocks: tuple[str, ...],
        first: Features | None = None,
        kind: type[FaceObserver] = FaceObserver,
    ) -> FaceObserver:
        """h(x, k) of some feature blocks, of all samples or some rows; `first` are the features of stage 0, if held."""
        samples, camera = (self.samples, self.camera) if rows is None else (self.samples[rows], self.camera[rows])
        spec = replace(self.spec, blocks=blocks)
        return kind(self.fitter, samples, camera, spec, n_identity=self.n_identity, first=first, memory=self.memory)

    def gram(self) -> SampleGram | None:
        """XX' block by block, of the samples of all processes; None if it does not fit."""
        n = int(self.counts.sum())
        if 8 * len(BLOCKS) * n * n > self.memory.gram:
            return None
        with self._lock:
            if self._gram is None:
                self._gram = compute_sample_gram(
                    self.features, len(self.samples), block_sizes=self.spec.block_sizes, bias=self.bias,
                    device=self.x.device, ranks=self.ranks,
                )  # fmt: skip
            return self._gram

    @property
    def matrix_bytes(self) -> int:
        """Bytes of the Gram matrix and the moments that are held: the same on all processes."""
        gram = 0 if self._gram is None else self._gram.blocks.nbytes
        return gram + (0 if self._moments is None else self._moments.gram.nbytes)

    def moments(self) -> Moments:
        """X'X and X'Y of the samples of all processes."""
        with self._lock:
            if self._moments is None:
                self._moments = self.moments_of(None)
            return self._moments

    def moments_of(self, rows: Int[Tensor, "rows"] | None) -> Moments:
        """X'X and X'Y of some rows; None: of all."""
        y = self.samples.parameters.flat - self.x
        y = y if rows is None else y[rows]
        return compute_moments(self._features_of(rows), y, bias=self.bias, ranks=self.ranks)

    def _features_of(self, rows: Int[Tensor, "rows"] | None) -> Features:
        if rows is None:
            return self.features
        if isinstance(self.features, Tensor):
            return select_rows(self.features, rows)
        return self.observer(rows, BLOCKS).source(self.x[rows])


class SplitState:
    """The samples of one split on their way through cascades: rows of a first stage and their parameters x.

    `begin` puts x back to the start of a cascade; `observe` is then its h(x, k), and each kept stage moves x.
    """

    def __init__(self, samples: Samples, first: FirstStage) -> None:
        self.samples, self.first = samples, first
        self.order = samples.order(first.ranks)
        self.retract: Retract = retraction(first.model)
        self._rows = None if samples.whole is None else samples.rows.to(first.x.device)
        self.fitted = first.fitted if self._rows is None else first.fitted[self._rows]
        self._moments: Moments | None = None  # of all blocks
        self.begin(BLOCKS)

    @property
    def target(self) -> Float[Tensor, "n p"]:
        """The x that cascades move towards: S*."""
        return self.samples.parameters.flat

    def shape(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "n shape"]:
        """The part of x that describes the shape: all of it."""
        return x

    def begin(self, blocks: tuple[str, ...]) -> None:
        """Start a cascade on some feature blocks."""
        first, rows = self.first, self._rows
        self.blocks, self.x = blocks, first.x if rows is None else first.x[rows]
        self.observe = first.observer(rows, blocks, self._first_features())

    def _first_features(self) -> Features | None:
        """The features of stage 0 that are held, of the blocks of the cascade."""
        first, rows = self.first, self._rows
        if not isinstance(first.features, Tensor):
            return None
        columns = select_blocks(first.features, first.spec, self.blocks)
        return columns if rows is None else select_rows(columns, rows)

    def stepped(self, cascade: Cascade, k: int) -> Float[Tensor, "n p"]:
        """The parameters after stage k."""
        return cascade.step(self.x, self.observe, k) if len(self.x) else self.x

    def gram(self) -> SampleGram | None:
        """XX' of the features of stage 0 of these samples, on all processes; None if it does not fit."""
        first, whole = self.first, self.first.gram()
        if whole is None:
            return None
        at = [first.spec.blocks.index(block) for block in self.blocks]
        some = replace(whole, blocks=whole.blocks[at], block_sizes=tuple(whole.block_sizes[k] for k in at))
        if self._rows is None:
            return some
        before = int(first.counts[: first.ranks.rank].sum())
        return some.select(first.ranks.gather(self._rows + before))

    def moments(self) -> Moments | None:
        """X'X and X'Y of stage 0 of these samples, of all processes; None if they do not fit, if the blocks do not
        stand side by side, or if those of all blocks would cost more than these few columns alone."""
        first, blocks, sizes = self.first, self.blocks, self.first.spec.block_sizes
        at = BLOCKS.index(blocks[0])
        columns = slice(sum(sizes[:at]), sum(sizes[: at + len(blocks)]))
        few = 2 * (columns.stop - columns.start) < sum(sizes)
        if few or BLOCKS[at : at + len(blocks)] != blocks or 16 * sum(sizes) ** 2 > first.memory.gram:
            return None
        if self._moments is None:
            self._moments = self._moments_of_all_blocks()
        return self._moments.columns(columns)

    def _moments_of_all_blocks(self) -> Moments:
        """The moments of the training rows: those of the whole set minus those left out, if these are fewer."""
        first = self.first
        if self._rows is None:
            return first.moments()
        selected = torch.zeros(len(first.x), dtype=torch.bool, device=first.x.device)
        selected[self._rows] = True
        left_out = torch.nonzero(~selected).flatten()
        n, gone = int(first.counts.sum()), len(first.ranks.gather(left_out))
        if gone == 0:
            return first.moments()
        return first.moments().without(first.moments_of(left_out)) if 2 * gone < n else first.moments_of(self._rows)


class FirstStageCache:
    """First stages of whole sets, one for each landmark fit that is asked for; all methods and folds take rows of them.

    Args:
        memory: what may be held.
        ranks: the processes that share the samples.
    """

    def __init__(self, memory: MemoryBudget = UNBOUNDED, ranks: Ranks = SINGLE) -> None:
        self.memory, self.ranks = memory, ranks
        self._stages: dict[tuple[int, FitSpec, str, JointSpec, bool, int], FirstStage] = {}

    def split(self, setup: TrainSetup, samples: Samples) -> SplitState:
        """The state of `samples` under the landmark fit of `setup`."""
        return SplitState(samples, self.first_stage(setup, samples))

    def first_stage(self, setup: TrainSetup, samples: Samples) -> FirstStage:
        """The first stage, under the landmark fit of `setup`, of the set that `samples` are rows of."""
        whole = samples if samples.whole is None else samples.whole
        spec = setup.spec
        features = replace(spec.features, blocks=BLOCKS)
        key = (id(whole), spec.fit, spec.start, features, setup.cascade.ridge.bias, id(setup.model))
        stage = self._stages.pop(key, None)
        if stage is None:
            # Evict by the largest rank's size, so that all ranks evict alike; otherwise a later gather would deadlock.
            counts = self.ranks.gather(torch.tensor([len(whole)], device=whole.landmarks.device))
            needed = int(counts.max()) * features.length * setup.model.identity_mean.element_size()
            self._evict(needed, setup)
            held = needed if self._held + needed <= self.memory.features else 0
            stage = FirstStage(setup, whole, self, counts, held=held)
            if self.ranks.is_first:
                how = "held" if stage.held else "read in chunks"
                _log.info("%s: %.2f GB of features of the first stage, %s", whole.name, needed / 1e9, how)
        self._stages[key] = stage  # the last that was asked for stands last
        return stage

    @property
    def _held(self) -> int:
        """Bytes of the features that are held."""
        return sum(stage.held for stage in self._stages.values())

    def _evict(self, needed: int, setup: TrainSetup) -> None:
        """Drop the first stages used longest ago until `needed` bytes of features fit and the matrices of those that
        stay have room, but none of the model and landmark fit in use."""
        used = (setup.spec.fit, id(setup.model))
        for key in [key for key in self._stages if (key[1], key[-1]) != used]:
            matrices = sum(stage.matrix_bytes for stage in self._stages.values())
            fits = self._held + needed <= self.memory.features and matrices <= self.memory.gram
            if len(self._stages) < _KEPT and fits:
                break
            del self._stages[key]


def choose_penalties(model: FaceModel, people: Samples, spec: FitSpec, ranks: Ranks = SINGLE) -> FitSpec:
    """`spec` with the two penalties of Eq. 7, and then the weight of a marching contour, of least vertex error on
    `people`, the samples of all processes.

    The evaluation faces are gathered on all processes; each process tries some of the identity penalties.
    """
    order = people.order(ranks)
    chosen = order.sorted_places[evaluation_faces(len(order)).to(order.places.device)]
    evaluated = people[torch.nonzero(torch.isin(order.places, chosen)).flatten()]
    order = evaluated.order(ranks)
    landmarks = order.gather(evaluated.landmarks)
    meshes = order.gather(evaluated.true_meshes(slice(0, len(evaluated)), model.identity_mean))
    grid = IDENTITY_GRID[ranks.rank :: ranks.world]
    error = torch.empty(0, len(EXPRESSION_GRID), device=model.device, dtype=model.dtype)
    if grid:
        tried = select_penalties(model, landmarks, meshes, spec, identity_grid=grid, expression_grid=EXPRESSION_GRID)
        error = tried.error.to(model.device)
    dealt = [k for rank in range(ranks.world) for k in range(rank, len(IDENTITY_GRID), ranks.world)]
    table: Tensor = ranks.gather(error)[torch.argsort(torch.tensor(dealt, device=error.device))]
    identity, expression = divmod(int(table.argmin()), len(EXPRESSION_GRID))
    best = replace(spec, identity_penalty=IDENTITY_GRID[identity], expression_penalty=EXPRESSION_GRID[expression])
    return select_contour_weight(model, landmarks, meshes, best) if spec.contour == "marching" else best
