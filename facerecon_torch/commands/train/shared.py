"""What the methods, folds and nested folds of one run have in common, computed once: landmark fits, the features of the
first stage, and their Gram matrix."""

import logging
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.cascade.observe import FaceObserver, Observed, select_blocks
from facerecon_torch.cascade.start import mean_face
from facerecon_torch.commands.train import methods
from facerecon_torch.commands.train.samples import Samples
from facerecon_torch.features.joint import JointSpec
from facerecon_torch.fitting.crop import CropSpec
from facerecon_torch.fitting.landmark_fit import FitSpec, LandmarkFitter
from facerecon_torch.model.base import FaceModel
from facerecon_torch.regression.cascade import CascadeSpec
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
from facerecon_torch.structures import FaceParameters

__all__ = ["Shared", "Side", "TrainSetup"]

_log = logging.getLogger(__name__)
_KEPT = 8  # starts of whole sets that are remembered; folds rarely choose more penalties


@dataclass(frozen=True)
class TrainSetup:
    """All that a training run is told, but the data. `start` is where cascades begin: the landmark fit, or the mean
    face."""

    model: FaceModel
    fit: FitSpec
    crop: CropSpec
    features: JointSpec
    cascade: CascadeSpec
    start: str = "landmark_fit"
    crop_fit: FitSpec = field(default_factory=FitSpec)  # the fit that the crops followed


class _Start:
    """One whole set under one landmark fit: where cascades start, and what they observe there."""

    def __init__(
        self,
        setup: TrainSetup,
        samples: Samples,
        memory: MemoryBudget,
        ranks: Ranks,
        counts: Int[Tensor, "processes"],
        *,
        held: int,
    ) -> None:
        self.samples, self.memory, self.ranks = samples, memory, ranks
        self.counts = counts  # samples of each process
        self.held = held  # bytes of features of the process with the most samples; 0: read in chunks
        self.spec = replace(setup.features, blocks=methods.BLOCKS)
        fitter = LandmarkFitter(setup.model, setup.fit)
        fit = fitter.fit(samples.landmarks)
        self.fitted = fit.parameters
        mean = mean_face(setup.model, len(samples))
        self.x = (fit.parameters if setup.start == "landmark_fit" else mean).flat
        observed = Observed(samples.landmarks, fit.camera, samples.bank)
        self.fitter, self.observed, self.n_identity = fitter, observed, setup.model.n_identity
        observer = self.observer(None)
        view = observer.view(self.x)
        self._gram: SampleGram | None = None
        self._moments: Moments | None = None
        self.features = observer.features(view) if held else observer.source(view)

    def observer(self, rows: Int[Tensor, "rows"] | None) -> FaceObserver:
        """That of HOG and LD, of all samples or of some rows."""
        observed = self.observed if rows is None else self.observed.at(rows)
        return FaceObserver(self.fitter, self.n_identity, observed, self.spec, memory=self.memory)

    def gram(self) -> SampleGram | None:
        """XX' of the first stage's features, block by block, of the samples of all processes; None where it does not
        fit."""
        n = int(self.counts.sum())
        if 8 * len(self.spec.blocks) * n * n > self.memory.gram:
            return None
        if self._gram is None:
            sizes, device = self.spec.block_sizes, self.x.device
            self._gram = compute_sample_gram(
                self.features, len(self.samples), block_sizes=sizes, device=device, ranks=self.ranks
            )
        return self._gram

    def moments(self) -> Moments:
        """X'X and X'Y of the first stage, of the samples of all processes."""
        if self._moments is None:
            self._moments = self.moments_of(None)
        return self._moments

    def moments_of(self, rows: Int[Tensor, "rows"] | None) -> Moments:
        """Those of some rows."""
        y = self.samples.truth.parameters.flat - self.x
        return compute_moments(self.read(rows), y if rows is None else y[rows], ranks=self.ranks)

    def read(self, rows: Int[Tensor, "rows"] | None) -> Features:
        """The features of stage 0 of some rows."""
        if rows is None:
            return self.features
        if isinstance(self.features, Tensor):
            return select_rows(self.features, rows)
        observer = self.observer(rows)
        return observer.source(observer.view(self.x[rows]))


@dataclass
class Side:
    """Some samples under one landmark fit: rows of a whole set's start, or all of it."""

    samples: Samples
    start: _Start
    rows: Int[Tensor, "rows"] | None
    found: Moments | None = None  # of all blocks, once they were asked for

    @property
    def fitted(self) -> FaceParameters:
        """The landmark fit."""
        return self.start.fitted if self.rows is None else self.start.fitted[self.rows]

    @property
    def x(self) -> Float[Tensor, "n p"]:
        """Where cascades start."""
        return self.start.x if self.rows is None else self.start.x[self.rows]

    def observer(self, blocks: tuple[str, ...]) -> FaceObserver:
        """h(x, k) of some feature blocks, with the features of stage 0 where they are held."""
        return self.start.observer(self.rows).with_blocks(blocks, self._first(blocks))

    def _first(self, blocks: tuple[str, ...]) -> Features | None:
        whole = self.start.features
        if not isinstance(whole, Tensor):
            return None
        columns = select_blocks(whole, self.start.spec, blocks)
        return columns if self.rows is None else select_rows(columns, self.rows)

    def gram(self, blocks: tuple[str, ...]) -> SampleGram | None:
        """XX' of the features of stage 0 of these samples, on all processes."""
        whole = self.start.gram()
        if whole is None:
            return None
        at = [self.start.spec.blocks.index(block) for block in blocks]
        some = replace(whole, blocks=whole.blocks[at], block_sizes=tuple(whole.block_sizes[k] for k in at))
        if self.rows is None:
            return some
        before = int(self.start.counts[: self.start.ranks.rank].sum())
        return some.select(self.start.ranks.gather(self.rows + before))

    def moments(self, blocks: tuple[str, ...]) -> Moments | None:
        """X'X and X'Y of stage 0 of these samples, of all processes; None where they do not fit, where the blocks do
        not stand side by side, and where those of all blocks would cost more than these few columns alone."""
        start, (first, *_), sizes = self.start, blocks, self.start.spec.block_sizes
        at = start.spec.blocks.index(first)
        columns = slice(sum(sizes[:at]), sum(sizes[: at + len(blocks)]))
        few = 2 * (columns.stop - columns.start) < sum(sizes)
        if few or start.spec.blocks[at : at + len(blocks)] != blocks or 16 * sum(sizes) ** 2 > start.memory.gram:
            return None
        if self.found is None:
            self.found = self._of_all_blocks()
        return self.found.columns(columns)

    def _of_all_blocks(self) -> Moments:
        """All less those left out, where these are fewer."""
        if self.rows is None:
            return self.start.moments()
        start = self.start
        kept = torch.zeros(len(start.x), dtype=torch.bool, device=start.x.device)
        kept[self.rows] = True
        n, left_out = int(start.counts.sum()), torch.nonzero(~kept).flatten()
        gone = len(start.ranks.gather(left_out))
        if gone == 0:
            return start.moments()
        return start.moments().without(start.moments_of(left_out)) if 2 * gone < n else start.moments_of(self.rows)


class Shared:
    """Gives every set its start, computed once for each landmark fit that it is asked for with; folds see rows of it.

    `memory` says what may be held, `ranks` whose samples these are.
    """

    def __init__(self, memory: MemoryBudget = UNBOUNDED, ranks: Ranks = SINGLE) -> None:
        self.memory, self.ranks = memory, ranks
        self._starts: dict[tuple[int, FitSpec, str], _Start] = {}

    def side(self, setup: TrainSetup, samples: Samples) -> Side:
        """The start of `samples`: rows of that of the set that they are rows of."""
        whole = samples if samples.whole is None else samples.whole
        key = (id(whole), setup.fit, setup.start)
        start = self._starts.pop(key, None)
        if start is None:
            # By the most samples of any process: what one forgets all forget, as they ask each other for it.
            counts = self.ranks.gather(torch.tensor([len(whole)], device=whole.landmarks.device))
            needed = _feature_bytes(setup, int(counts.max()))
            self._make_room(needed, setup.fit)
            held = needed if self._held + needed <= self.memory.features else 0
            start = _Start(setup, whole, self.memory, self.ranks, counts, held=held)
            if self.ranks.is_first:
                how = "held" if start.held else "read in chunks"
                _log.info("%s: %.2f GB of features of the first stage, %s", whole.name, needed / 1e9, how)
        self._starts[key] = start  # the last that was asked for stands last
        rows = None if samples.rows is None else samples.rows.to(start.x.device)
        return Side(samples, start, rows)

    @property
    def _held(self) -> int:
        """Bytes of the features that are held."""
        return sum(start.held for start in self._starts.values())

    def _make_room(self, needed: int, fit: FitSpec) -> None:
        """Forget what was not asked for for longest, but nothing of the landmark fit in use."""
        for key in [key for key in self._starts if key[1] != fit]:
            if len(self._starts) < _KEPT and self._held + needed <= self.memory.features:
                break
            del self._starts[key]


def _feature_bytes(setup: TrainSetup, samples: int) -> int:
    spec = replace(setup.features, blocks=methods.BLOCKS)
    return samples * spec.length * setup.model.identity_mean.element_size()
