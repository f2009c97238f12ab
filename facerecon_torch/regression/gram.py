"""Second moments of a feature matrix: X'X and X'Y for the primal form, XX' block by block for the dual form.

Chunks are multiplied in float32 (float64 for float64 features, or on request) and summed in float64. Where the fit
has a bias, a provisional mean is taken off first and the exact one through the sums, so nothing cancels in float32.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.regression.streaming import Features, peek_rows, product_dtype_of, row_chunks

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
BAND_NUMBERS = 2**26  # 256 MiB of float32: the rows a streamed K holds while it reads the others again


def resolve_blocks(block_sizes: Sequence[int] | None, width: int) -> tuple[int, ...]:
    """The sizes of the feature blocks; None is one block. Raises ValueError unless they add up to `width`."""
    sizes = (width,) if block_sizes is None else tuple(block_sizes)
    if min(sizes, default=0) < 1 or sum(sizes) != width:
        raise ValueError(f"block_sizes must be positive and add up to {width} features; got {sizes}")
    return sizes


@dataclass(frozen=True)
class Moments:
    """Gram matrix and cross products about the mean (about 0 where the fit has no bias), float64."""

    gram: Float[Tensor, "d d"]
    cross: Float[Tensor, "d t"]
    feature_mean: Float[Tensor, "d"]
    target_mean: Float[Tensor, "t"]


def provisional_mean(first: Float[Tensor, "m d"], dtype: torch.dtype, shift: bool) -> Float[Tensor, "d"]:
    """The mean of the first rows (0 if not `shift`): any constant near the mean will do."""
    if not shift:
        return first.new_zeros(first.shape[1], dtype=dtype)
    return first.mean(0, dtype=torch.float64).to(dtype)


def shifted_chunks(
    features: Features, mean: Float[Tensor, "d"], n: int, rows: int | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """(row range, rows less `mean` in the dtype of `mean`); ValueError unless exactly `n` rows come."""
    total = 0
    for start, chunk in row_chunks(features, rows):
        total = start + chunk.shape[0]
        if total > n:
            break
        yield slice(start, total), chunk.to(mean.dtype) - mean
    if total != n:
        raise ValueError(f"features must yield {n} rows, one per target, on every pass; got {total}{'+' * (total > n)}")


def compute_moments(
    features: Features, y: Float[Tensor, "n t"], *, bias: bool = True, product_dtype: torch.dtype | None = None
) -> Moments:
    """X'X and X'Y in one pass over the rows; memory is [d, d] beside one chunk."""
    first = peek_rows(features)
    dtype = product_dtype_of(first.dtype, product_dtype)
    mean = provisional_mean(first, dtype, shift=bias)
    n, d = y.shape[0], mean.shape[0]
    targets = y.to(torch.float64)
    target_mean = targets.mean(0) if bias else torch.zeros_like(targets[0])
    targets = (targets - target_mean).to(dtype)
    gram = torch.zeros(d, d, dtype=torch.float64, device=mean.device)
    cross = torch.zeros(d, y.shape[1], dtype=torch.float64, device=mean.device)
    total = torch.zeros(d, dtype=torch.float64, device=mean.device)
    for rows, chunk in shifted_chunks(features, mean, n):
        gram += chunk.mT @ chunk
        cross += chunk.mT @ targets[rows]
        total += chunk.sum(0, dtype=torch.float64)
    if not bias:
        return Moments(gram, cross, torch.zeros_like(total), target_mean)
    offset = total / n
    return Moments(gram.addr_(total, offset, alpha=-1), cross, mean + offset, target_mean)


@dataclass(frozen=True)
class SampleGram:
    """K_b = (X_b - 1m')(X_b - 1m')' for each feature block b, float64; m = 0 unless `shifted`.

    A fit with a bias may use either (it centres exactly, whatever m was); one without a bias needs `shifted=False`.
    """

    blocks: Float[Tensor, "b n n"]
    block_sizes: tuple[int, ...]
    shifted: bool

    def select(self, rows: Int[Tensor, "m"]) -> "SampleGram":
        """The Gram matrix of some of the samples: cross-validation over the same features computes it once."""
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
) -> SampleGram:
    """K block by block. A source is read ceil(n / band_rows) times, each time against a band of rows held in memory."""
    first = peek_rows(features)
    sizes = resolve_blocks(block_sizes, first.shape[1])
    mean = provisional_mean(first, product_dtype_of(first.dtype, product_dtype), shift)
    blocks = torch.zeros(len(sizes), n, n, dtype=torch.float64, device=first.device)
    if isinstance(features, Tensor):
        if features.shape[0] != n:
            raise ValueError(f"features must hold {n} rows; got {features.shape[0]}")
        _add_in_memory(blocks, features, mean, sizes)
    else:
        _add_streamed(blocks, features, mean, sizes, band_rows or max(BAND_NUMBERS // first.shape[1], TILE_ROWS))
    for block in blocks:  # only tiles on and below the diagonal were computed
        lower = block.tril(-1)
        block.tril_().add_(lower.mT)
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
    blocks: Float[Tensor, "b n n"], source: Features, mean: Float[Tensor, "d"], sizes: tuple[int, ...], band_rows: int
) -> None:
    n = blocks.shape[1]
    for rows, band in shifted_chunks(source, mean, n, band_rows):
        for others, chunk in shifted_chunks(source, mean, n, TILE_ROWS):
            if others.start >= rows.stop:
                break
            for number, columns in _column_tiles(sizes):
                blocks[number, rows, others] += band[:, columns] @ chunk[:, columns].mT
