"""Second moments of a feature matrix: X'X and X'Y for the primal form, XX' block by block for the dual form.

Chunks are multiplied in float32 (float64 for float64 features, or on request) and summed in float64. Where the fit
has a bias, a provisional mean is taken off first and the exact one through the sums, so nothing cancels in float32.
Of symmetric products only the tiles on and below the diagonal are computed. With several processes every one of them
reads its own rows, and all end with the moments of all rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.regression.layout import Layout, lay_out, own_chunks, shifted_chunks
from facerecon_torch.regression.streaming import Features, chunk_rows
from facerecon_torch.regression.triangle import Triangle, tiles
from facerecon_torch.runtime.memory import halve_on_out_of_memory
from facerecon_torch.runtime.ranks import SINGLE, Ranks

__all__ = [
    "Moments",
    "SampleGram",
    "centre_in_place",
    "combine_blocks",
    "compute_moments",
    "compute_sample_gram",
    "resolve_blocks",
]

TILE_ROWS = 1024
TILE_COLUMNS = 2048
MOMENT_COLUMNS = 512  # of X'X at a time: wider strips waste more above the diagonal, narrower ones multiply slower
MOMENT_ROWS = 4096  # at least, where rows are wide: the float64 sums are read and written once for so many rows
BAND_NUMBERS = 2**26  # 256 MiB of float32: the rows a streamed K holds while it reads the others again


def resolve_blocks(block_sizes: Sequence[int] | None, width: int) -> tuple[int, ...]:
    """The sizes of the feature blocks; None is one block. Raises ValueError unless they add up to `width`."""
    sizes = (width,) if block_sizes is None else tuple(block_sizes)
    if min(sizes, default=0) < 1 or sum(sizes) != width:
        raise ValueError(f"block_sizes must be positive and add up to {width} features; got {sizes}")
    return sizes


@dataclass(frozen=True)
class Moments:
    """Gram matrix and cross products of `count` rows about their means (about 0 where not `centred`, for a fit without
    a bias), float64.

    Several fits may use the same moments one after the other: each works in the free half of the Gram matrix.
    """

    count: int
    gram: Triangle
    cross: Float[Tensor, "d t"]
    feature_mean: Float[Tensor, "d"]
    target_mean: Float[Tensor, "t"]
    centred: bool
    dtype: torch.dtype  # in which rows were multiplied

    def without(self, other: "Moments") -> "Moments":
        """The moments of these rows less those of `other`, which are among them: with N = n + m and d the difference of
        the means of the n rows that stay and the m that go, G_n = G_N - G_m - (n m / N) d d'."""
        if other.centred != self.centred or other.cross.shape != self.cross.shape or other.count >= self.count:
            raise ValueError(
                f"moments to take off {self.count} rows must be of fewer rows, of the same sizes and alike in bias; "
                f"got {other.count} rows, {tuple(other.cross.shape)} and {tuple(self.cross.shape)}"
            )
        count = self.count - other.count
        gram, cross = self.gram.room - other.gram.room, self.cross - other.cross
        gram.diagonal().copy_(self.gram.diagonal - other.gram.diagonal)
        if not self.centred:
            return Moments(count, Triangle(gram), cross, self.feature_mean, self.target_mean, False, self.dtype)
        share = other.count / count
        apart, targets_apart = self.feature_mean - other.feature_mean, self.target_mean - other.target_mean
        weight = share * self.count  # (n m / N) d d' with d = (mean of all - mean of m) N / n
        gram.addr_(apart, apart, alpha=-weight)
        cross.addr_(apart, targets_apart, alpha=-weight)
        feature_mean, target_mean = self.feature_mean + share * apart, self.target_mean + share * targets_apart
        return Moments(count, Triangle(gram), cross, feature_mean, target_mean, True, self.dtype)


def compute_moments(
    features: Features,
    y: Float[Tensor, "n t"],
    *,
    bias: bool = True,
    product_dtype: torch.dtype | None = None,
    ranks: Ranks = SINGLE,
) -> Moments:
    """X'X and X'Y in one pass over the rows; memory is [d, d] beside one chunk. All is done on the device of `y`; of
    several processes each gives its own rows."""
    layout = lay_out(features, len(y), shift=bias, device=y.device, product_dtype=product_dtype, ranks=ranks)
    targets = y.to(torch.float64)
    target_mean = ranks.add_(targets.sum(0)) / layout.n if bias else targets.new_zeros(y.shape[1])
    sums = _Sums(layout.mean, (targets - target_mean).to(layout.mean.dtype))
    for start, chunk in own_chunks(features, layout, max(chunk_rows(len(layout.mean), y.device), MOMENT_ROWS)):
        halve_on_out_of_memory(partial(sums.add, chunk, start), range(len(chunk)), len(chunk))
    gram, cross, total = (ranks.add_(part) for part in (sums.gram, sums.cross, sums.total))
    if not bias:
        return Moments(layout.n, Triangle(gram), cross, torch.zeros_like(total), target_mean, False, layout.mean.dtype)
    offset = total / layout.n
    gram.addr_(total, offset, alpha=-1)
    return Moments(layout.n, Triangle(gram), cross, layout.mean + offset, target_mean, True, layout.mean.dtype)


class _Sums:
    """Running sums over rows less `mean`, with room for one strip of products, so that adding never runs out of memory
    half way."""

    def __init__(self, mean: Float[Tensor, "d"], targets: Float[Tensor, "n t"]) -> None:
        d, t = len(mean), targets.shape[1]
        self.mean, self.targets = mean, targets
        shapes = ((d, d), (d, t), d)
        self.gram, self.cross, self.total = (mean.new_zeros(shape, dtype=torch.float64) for shape in shapes)
        self.strip = mean.new_empty(min(MOMENT_COLUMNS, d) * d)
        self.strip_cross = mean.new_empty(d, t)

    def add(self, chunk: Float[Tensor, "m d"], start: int, part: slice) -> None:
        """Add the rows `part` of a chunk whose first row is sample `start`."""
        rows = chunk[part].to(self.mean.dtype) - self.mean
        targets = self.targets[start + part.start : start + part.stop]
        total = rows.sum(0, dtype=torch.float64)
        for columns in tiles(rows.shape[1], MOMENT_COLUMNS):
            left = rows[:, columns].mT
            product = self.strip[: left.shape[0] * columns.stop].view(-1, columns.stop)
            self.gram[columns, : columns.stop] += torch.mm(left, rows[:, : columns.stop], out=product)
        self.cross += torch.mm(rows.mT, targets, out=self.strip_cross)
        self.total += total


@dataclass(frozen=True)
class SampleGram:
    """K_b = (X_b - 1m')(X_b - 1m')' for each feature block b, float64; m = 0 unless `shifted`.

    A fit with a bias may use either (it centres exactly, whatever m was); one without a bias needs `shifted=False`.
    """

    blocks: Float[Tensor, "b n n"]
    block_sizes: tuple[int, ...]
    shifted: bool

    def select(self, rows: Int[Tensor, "m"]) -> "SampleGram":
        """The Gram matrix of some of the samples: cross-validation over the same features computes it once.

        `rows` are numbers among the samples of all processes, each process's own in one run, in the order of ranks.
        """
        return replace(self, blocks=self.blocks[:, rows[:, None], rows])

    def centred(self, bias: bool) -> Float[Tensor, "b n n"]:
        """J K_b J with J = I - 11'/n where the fit has a bias, K_b itself where it has none."""
        if not bias and self.shifted:
            raise ValueError("a fit without bias needs a Gram matrix computed with shift=False; got shift=True")
        return centre_in_place(self.blocks.clone()) if bias else self.blocks


def centre_in_place(blocks: Float[Tensor, "b n n"]) -> Float[Tensor, "b n n"]:
    """K_b <- J K_b J with J = I - 11'/n."""
    columns = blocks.mean(1, keepdim=True)
    return blocks.sub_(columns).sub_(columns.mT).add_(columns.mean(2, keepdim=True))


def combine_blocks(blocks: Float[Tensor, "b n n"], scales: Float[Tensor, "b"]) -> Float[Tensor, "n n"]:
    """K = sum_b s_b^2 K_b: the Gram matrix of features whose block b is multiplied by s_b."""
    combined: Tensor = torch.tensordot(scales.square(), blocks, dims=1)
    return combined


def compute_sample_gram(
    features: Features,
    n: int,
    *,
    block_sizes: Sequence[int] | None = None,
    shift: bool = True,
    product_dtype: torch.dtype | None = None,
    band_rows: int | None = None,
    device: torch.device | None = None,
    ranks: Ranks = SINGLE,
) -> SampleGram:
    """K block by block, on `device` (None: that of the features). A source is read ceil(n / band_rows) times, each time
    against a band of rows held in memory.

    Of several processes each gives its own n rows, and each has K of all of them in the order of ranks; rows are handed
    round a tile at a time.
    """
    layout = lay_out(features, n, shift=shift, device=device, product_dtype=product_dtype, ranks=ranks)
    sizes = resolve_blocks(block_sizes, len(layout.mean))
    blocks = layout.mean.new_zeros(len(sizes), layout.n, layout.n, dtype=torch.float64)
    if isinstance(features, Tensor) and features.device == blocks.device and ranks.world == 1:
        if features.shape[0] != n:
            raise ValueError(f"features must hold {n} rows; got {features.shape[0]}")
        _add_in_memory(blocks, features, layout.mean, sizes)
    else:
        _add_streamed(blocks, features, layout, sizes, band_rows, ranks)
        ranks.add_(blocks)
    for block in blocks:  # only tiles on and below the diagonal were computed
        for rows in tiles(layout.n, TILE_ROWS):
            block[rows, rows] = block[rows, rows].tril() + block[rows, rows].tril(-1).mT
            block[rows, rows.stop :] = block[rows.stop :, rows].mT
    return SampleGram(blocks, sizes, shifted=shift)


def _column_tiles(sizes: tuple[int, ...]) -> Iterator[tuple[int, slice]]:
    start = 0
    for number, size in enumerate(sizes):
        for low in range(start, start + size, TILE_COLUMNS):
            yield number, slice(low, min(low + TILE_COLUMNS, start + size))
        start += size


def _add_in_memory(
    blocks: Float[Tensor, "b n n"], x: Float[Tensor, "n d"], mean: Float[Tensor, "d"], sizes: tuple[int, ...]
) -> None:
    n = x.shape[0]
    tiles = [slice(low, min(low + TILE_ROWS, n)) for low in range(0, n, TILE_ROWS)]
    for number, columns in _column_tiles(sizes):
        part = x[:, columns].to(mean.dtype) - mean[columns]
        for rows in tiles:
            left = slice(0, rows.stop)
            blocks[number, rows, left] += part[rows] @ part[left].mT


def _add_streamed(
    blocks: Float[Tensor, "b n n"],
    features: Features,
    layout: Layout,
    sizes: tuple[int, ...],
    band_rows: int | None,
    ranks: Ranks,
) -> None:
    """The own rows of K, as far as the diagonal. All processes read as many bands, and in each as many tiles, so that
    they meet at every exchange."""
    size = band_rows or max(BAND_NUMBERS // len(layout.mean), TILE_ROWS)
    own, bands = layout.own.start, shifted_chunks(features, layout, size)
    nothing = layout.mean.new_empty(0, len(layout.mean))
    for _ in range(-(-max(layout.counts) // size)):
        rows, band = next(bands, (slice(0, 0), nothing))
        here = slice(own + rows.start, own + rows.stop)
        for there, chunk in _tiles_of_all(features, layout, ranks):
            if there.start >= here.stop and ranks.world == 1:
                break
            if there.start >= here.stop or not len(band):
                continue
            for number, columns in _column_tiles(sizes):
                blocks[number, here, there] += band[:, columns] @ chunk[:, columns].mT
    next(bands, None)  # lets the last pass find out whether more rows come


def _tiles_of_all(features: Features, layout: Layout, ranks: Ranks) -> Iterator[tuple[slice, Float[Tensor, "m d"]]]:
    """(range among the rows of all, the rows): the next tile of every process, until all have given theirs."""
    chunks = shifted_chunks(features, layout, TILE_ROWS)
    for low in range(0, max(layout.counts), TILE_ROWS):
        _, chunk = next(chunks, (slice(0, 0), layout.mean.new_empty(0, len(layout.mean))))
        lengths = [min(max(count - low, 0), TILE_ROWS) for count in layout.counts]
        start = low
        parts = torch.split(ranks.gather(chunk), lengths)
        for count, length, part in zip(layout.counts, lengths, parts, strict=True):
            if length:
                yield slice(start, start + length), part
            start += count
    next(chunks, None)
