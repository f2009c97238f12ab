"""Second moments of features: X'X and X'Y for the primal form, XX' block by block for the dual form.

Rows are multiplied in float32 (in float64 where the features are float64) and the products are summed in float64. A fit
with a bias takes a provisional mean off first and the exact mean off the sums, so nothing cancels in float32. Of a
symmetric product only the tiles on and below the diagonal are computed. Several processes each read their own rows;
all_reduce gives every one of them the moments of all rows.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.runtime.device import to_device
from facerecon_torch.runtime.memory import free_bytes, halve_on_out_of_memory
from facerecon_torch.runtime.ranks import SINGLE, Ranks

__all__ = [
    "Features",
    "Moments",
    "RowSource",
    "Rows",
    "SampleGram",
    "centre_",
    "combine_blocks",
    "compute_moments",
    "compute_sample_gram",
    "resolve_blocks",
    "row_chunks",
    "select_rows",
    "tiles",
]

RowSource: TypeAlias = Callable[[], Iterable[Tensor]]
Features: TypeAlias = Tensor | RowSource  # a matrix, or a function that starts a pass over its row chunks

# 2^24 numbers are 64 MiB of float32: full speed of matrix products, small beside any X worth reading in chunks.
CHUNK_NUMBERS = 2**24
# A GPU wants larger products: up to 2^26 numbers where its memory has room for 16 times as much.
CUDA_CHUNK_NUMBERS = 2**26
CUDA_CHUNK_SHARE = 16
MOMENT_ROWS = 4096  # at least, where rows are wide: the float64 sums are read and written once for so many rows
MOMENT_COLUMNS = 512  # of X'X at a time: wider panels waste more above the diagonal, narrower ones multiply slower
TILE_ROWS = 1024  # of XX' at a time
TILE_COLUMNS = 2048


def tiles(start: int, stop: int, size: int) -> Iterator[slice]:
    """start : start + size, start + size : start + 2 size, ... up to `stop`."""
    for low in range(start, stop, size):
        yield slice(low, min(low + size, stop))


def row_chunks(
    features: Features, rows: int | None = None, device: torch.device | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """(range of samples, their rows) in order, `rows` at a time (default: `chunk_rows`), on `device` if given.

    A tensor is cut into views. The chunks of a source may have any size; they are joined and cut.
    """
    start = 0
    for chunk in to_device(_rechunked(features, rows), device):
        yield slice(start, start + len(chunk)), chunk
        start += len(chunk)


def chunk_rows(width: int, device: torch.device) -> int:
    """Rows of a chunk: 64 MiB of float32, on CUDA more where there is room; at least 64."""
    numbers = CHUNK_NUMBERS
    if device.type == "cuda":
        numbers = min(max(free_bytes(device) // (4 * CUDA_CHUNK_SHARE), CHUNK_NUMBERS), CUDA_CHUNK_NUMBERS)
    return min(max(numbers // max(width, 1), 64), 2**16)


def select_rows(x: Float[Tensor, "n d"], rows: Int[Tensor, "m"], size: int | None = None) -> RowSource:
    """A source of x[rows] that copies `size` rows at a time: a fold of a large matrix without a copy of the matrix.

    Args:
        x: the matrix.
        rows: their numbers.
        size: rows of a chunk (None: `chunk_rows`).

    Example:
        >>> fit_ridge(select_rows(x, rows), y[rows], 0.5)
    """
    size = size or chunk_rows(x.shape[1], x.device)
    return lambda: (x[part] for part in torch.split(rows, size))


def _rechunked(features: Features, rows: int | None) -> Iterator[Tensor]:
    """Chunks of `rows` rows each, the last one aside. One buffer is filled at a time; full chunks pass as views."""
    width: int | None = None
    buffer: Tensor | None = None
    filled = 0
    for chunk in (features,) if isinstance(features, Tensor) else features():
        _require_matrix(chunk)
        width = chunk.shape[1] if width is None else width
        if chunk.shape[1] != width:
            raise ValueError(f"every chunk of features must have {width} columns; got {chunk.shape[1]}")
        size = rows or chunk_rows(width, chunk.device)
        while chunk.numel():
            if buffer is None and (len(chunk) >= size or isinstance(features, Tensor)):
                yield chunk[:size]
                chunk = chunk[size:]
                continue
            buffer = chunk.new_empty(size, width) if buffer is None else buffer
            part = chunk[: size - filled]
            buffer[filled : filled + len(part)] = part
            filled, chunk = filled + len(part), chunk[len(part) :]
            if filled == size:
                full, buffer, filled = buffer, None, 0
                yield full
                del full  # not held while the next one fills
    if buffer is not None:
        yield buffer[:filled]


def _require_matrix(chunk: object) -> None:
    if not isinstance(chunk, Tensor):
        raise TypeError(f"features must be tensors; got {type(chunk).__name__}")
    if chunk.ndim != 2 or not chunk.is_floating_point():
        raise ValueError(f"features must be a floating point matrix; got {chunk.dtype} {tuple(chunk.shape)}")


@dataclass(frozen=True)
class Rows:
    """The feature rows of one fit on this process, with the row counts and the provisional mean of all processes.

    `counts` are the rows of each process in the order of ranks. `provisional_mean` is a constant near the mean of the
    features (0 for a fit without a bias); its dtype is that of products, its device that of the work.
    """

    features: Features
    counts: tuple[int, ...]
    provisional_mean: Float[Tensor, "d"]
    ranks: Ranks

    @classmethod
    def agree(
        cls, features: Features, n: int, *, bias: bool, device: torch.device | None = None, ranks: Ranks = SINGLE
    ) -> "Rows":
        """The rows of a fit with `n` own rows, which may be none. `device` is that of the work (None: that of the
        features). Raises ValueError unless there are rows, all of one width."""
        first = _first_chunk(features)
        if device is None:
            device = torch.device("cpu") if first is None else first.device
        width, double = (0, 0) if first is None else (first.shape[1], int(first.dtype == torch.float64))
        counts, widths, doubles = ranks.gather(torch.tensor([[n, width, double]], device=device)).T.tolist()
        if len(set(widths) - {0}) != 1:
            raise ValueError(
                f"features must hold at least one row, and of all processes the same number of columns; got {widths}"
            )
        dtype = torch.float64 if any(doubles) else torch.float32
        mean = torch.zeros(max(widths), dtype=dtype, device=device)
        if bias:
            own = mean.new_zeros(0, len(mean), dtype=torch.float64)
            if first is not None:
                own = first.to(device).mean(0, keepdim=True, dtype=torch.float64)
            mean = ranks.gather(own)[0].to(dtype)
        return cls(features, tuple(counts), mean, ranks)

    @property
    def n(self) -> int:
        """Rows of all processes."""
        return sum(self.counts)

    @property
    def d(self) -> int:
        """Features."""
        return len(self.provisional_mean)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of products of rows."""
        return self.provisional_mean.dtype

    @property
    def own(self) -> slice:
        """Where the rows of this process stand among those of all."""
        start = sum(self.counts[: self.ranks.rank])
        return slice(start, start + self.counts[self.ranks.rank])

    def chunks(self, rows: int | None = None) -> Iterator[tuple[slice, Tensor]]:
        """`row_chunks` of the own rows on the device of the work. Raises ValueError unless exactly as many come as were
        announced."""
        total, n = 0, self.counts[self.ranks.rank]
        for part, chunk in row_chunks(self.features, rows, self.provisional_mean.device):
            total = part.stop
            if total > n:
                break
            yield part, chunk
        require_rows(total, n)

    def matrix(self) -> Tensor:
        """The own rows in one tensor: the features themselves, or the joined chunks of a source."""
        if isinstance(self.features, Tensor):
            require_rows(len(self.features), self.counts[self.ranks.rank])
            return self.features
        joined = self.provisional_mean.new_empty(self.counts[self.ranks.rank], self.d)
        for part, chunk in self.chunks():
            joined[part] = chunk
        return joined


def require_rows(got: int, n: int) -> None:
    """Raises ValueError unless a pass over the features yielded n rows."""
    if got != n:
        raise ValueError(f"features must yield {n} rows, one per target, on every pass; got {got}{'+' * (got > n)}")


def _first_chunk(features: Features) -> Tensor | None:
    """The first rows, None where there are none. A source is iterated up to its first chunk and then closed."""
    for chunk in (features,) if isinstance(features, Tensor) else features():
        _require_matrix(chunk)
        if chunk.numel():
            return chunk[: chunk_rows(chunk.shape[1], chunk.device)]
    return None


@dataclass(frozen=True)
class Moments:
    """X'X [d, d] and X'Y [d, t] of `count` rows about their means (about 0 if not `centred`, for a fit without a bias),
    in float64. `dtype` is that in which rows were multiplied. Several fits may share them; none changes them.

    Example:
        >>> everyone = compute_moments(x, y)
        >>> fold = everyone.without(compute_moments(x[left_out], y[left_out]))  # cheaper than all other rows again
    """

    count: int
    gram: Float[Tensor, "d d"]
    cross: Float[Tensor, "d t"]
    feature_mean: Float[Tensor, "d"]
    target_mean: Float[Tensor, "t"]
    centred: bool
    dtype: torch.dtype

    def columns(self, columns: slice) -> "Moments":
        """The moments of some of the features."""
        gram, cross, mean = self.gram[columns, columns], self.cross[columns], self.feature_mean[columns]
        return replace(self, gram=gram, cross=cross, feature_mean=mean)

    def without(self, other: "Moments") -> "Moments":
        """The moments of these rows less those of `other`, which are among them.

        With N = n + m rows and d the difference of the means of the n rows that stay and the m that go,
        G_n = G_N - G_m - (n m / N) d d'.

        Raises:
            ValueError: if `other` has not fewer rows, other sizes, or differs in `centred`.
        """
        if other.centred != self.centred or other.cross.shape != self.cross.shape or other.count >= self.count:
            raise ValueError(
                f"moments to take off {self.count} rows must be of fewer rows, of the same sizes and alike in bias; "
                f"got {other.count} rows, {tuple(other.cross.shape)} and {tuple(self.cross.shape)}"
            )
        count = self.count - other.count
        gram, cross = self.gram - other.gram, self.cross - other.cross
        if not self.centred:
            return replace(self, count=count, gram=gram, cross=cross)
        ratio = other.count / count
        apart, targets_apart = self.feature_mean - other.feature_mean, self.target_mean - other.target_mean
        weight = ratio * self.count  # (n m / N) d d' with d = (mean of all - mean of m) N / n
        gram.addr_(apart, apart, alpha=-weight)
        cross.addr_(apart, targets_apart, alpha=-weight)
        feature_mean, target_mean = self.feature_mean + ratio * apart, self.target_mean + ratio * targets_apart
        return Moments(count, gram, cross, feature_mean, target_mean, True, self.dtype)


def compute_moments(
    features: Features, y: Float[Tensor, "n t"], *, bias: bool = True, ranks: Ranks = SINGLE
) -> Moments:
    """X'X and X'Y of the rows of all processes in one pass, on the device of `y`; memory is [d, d] beside one chunk.

    Args:
        features: [n, d], or a source of its row chunks.
        y: targets.
        bias: take moments about the means, for a fit with a bias.
        ranks: the processes that share the fit; each gives its own rows.

    Raises:
        ValueError: there is not one row of features for each target.

    Example:
        >>> fold = compute_moments(x, y).without(compute_moments(x[left_out], y[left_out]))
    """
    return moments_of_rows(Rows.agree(features, len(y), bias=bias, device=y.device, ranks=ranks), y, bias=bias)


def moments_of_rows(rows: Rows, y: Float[Tensor, "n t"], *, bias: bool) -> Moments:
    """`compute_moments` of rows that processes have agreed on."""
    targets, ranks = y.to(torch.float64), rows.ranks
    target_mean = ranks.add_(targets.sum(0)) / rows.n if bias else targets.new_zeros(y.shape[1])
    sums = _Sums(rows.provisional_mean, (targets - target_mean).to(rows.dtype))
    for part, chunk in rows.chunks(max(chunk_rows(rows.d, y.device), MOMENT_ROWS)):
        halve_on_out_of_memory(partial(sums.add, chunk, part.start), range(len(chunk)), len(chunk))
    gram, cross, total = (ranks.add_(part) for part in (sums.gram, sums.cross, sums.total))
    mean = torch.zeros_like(total)
    if bias:
        offset = total / rows.n
        gram.addr_(total, offset, alpha=-1)
        mean = rows.provisional_mean + offset
    _mirror_lower_(gram)
    return Moments(rows.n, gram, cross, mean, target_mean, bias, rows.dtype)


class _Sums:
    """Running sums over rows less `mean`, with room for one panel of products."""

    def __init__(self, mean: Float[Tensor, "d"], targets: Float[Tensor, "n t"]) -> None:
        d, t = len(mean), targets.shape[1]
        self.mean, self.targets = mean, targets
        shapes = ((d, d), (d, t), d)
        self.gram, self.cross, self.total = (mean.new_zeros(shape, dtype=torch.float64) for shape in shapes)
        self.panel = mean.new_empty(min(MOMENT_COLUMNS, d) * d)
        self.panel_cross = mean.new_empty(d, t)

    def add(self, chunk: Float[Tensor, "m d"], start: int, part: slice) -> None:
        """Add the rows `part` of a chunk whose first row is sample `start`."""
        rows = chunk[part].to(self.mean.dtype) - self.mean
        targets = self.targets[start + part.start : start + part.stop]
        total = rows.sum(0, dtype=torch.float64)
        for columns in tiles(0, rows.shape[1], MOMENT_COLUMNS):
            left = rows[:, columns].mT
            product = self.panel[: left.shape[0] * columns.stop].view(-1, columns.stop)
            self.gram[columns, : columns.stop] += torch.mm(left, rows[:, : columns.stop], out=product)
        self.cross += torch.mm(rows.mT, targets, out=self.panel_cross)
        self.total += total


def _mirror_lower_(matrix: Float[Tensor, "m m"]) -> None:
    """Copy the lower triangle to the upper one, panel by panel."""
    for rows in tiles(0, len(matrix), TILE_ROWS):
        matrix[rows, rows] = matrix[rows, rows].tril() + matrix[rows, rows].tril(-1).mT
        matrix[rows, rows.stop :] = matrix[rows.stop :, rows].mT


@dataclass(frozen=True)
class SampleGram:
    """K_b = (X_b - 1m')(X_b - 1m')' for each feature block b, in float64; m = 0 unless `shifted`.

    A fit with a bias may use either, as it centres exactly whatever m was; one without a bias needs `shifted=False`.
    """

    blocks: Float[Tensor, "b n n"]
    block_sizes: tuple[int, ...]
    shifted: bool

    def select(self, rows: Int[Tensor, "m"]) -> "SampleGram":
        """The Gram matrix of some of the samples, so that folds over the same features compute it once.

        `rows` are numbers among the samples of all processes, each process's own in one run, in the order of ranks.
        """
        return replace(self, blocks=self.blocks[:, rows[:, None], rows])


def centre_(blocks: Float[Tensor, "b n n"]) -> Float[Tensor, "b n n"]:
    """J K_b J with J = I - 11'/n, in place."""
    columns = blocks.mean(1, keepdim=True)
    return blocks.sub_(columns).sub_(columns.mT).add_(columns.mean(2, keepdim=True))


def combine_blocks(blocks: Float[Tensor, "b n n"], scales: Float[Tensor, "b"]) -> Float[Tensor, "n n"]:
    """K = sum_b s_b^2 K_b: the Gram matrix of features whose block b is multiplied by s_b."""
    combined: Tensor = torch.tensordot(scales.square(), blocks, dims=1)
    return combined


def resolve_blocks(block_sizes: Sequence[int] | None, width: int) -> tuple[int, ...]:
    """The sizes of the feature blocks; None is one block. Raises ValueError unless they add up to `width`."""
    sizes = (width,) if block_sizes is None else tuple(block_sizes)
    if min(sizes, default=0) < 1 or sum(sizes) != width:
        raise ValueError(f"block_sizes must be positive and add up to {width} features; got {sizes}")
    return sizes


def compute_sample_gram(
    features: Features,
    n: int,
    *,
    block_sizes: Sequence[int] | None = None,
    bias: bool = True,
    device: torch.device | None = None,
    ranks: Ranks = SINGLE,
) -> SampleGram:
    """XX' of the samples of all processes in the order of ranks, for each block of columns (None: one block).

    Args:
        features: [n, d], or a source of its row chunks, which are joined first.
        n: own rows.
        block_sizes: columns of each feature block in order (None: one block).
        bias: take a provisional mean off, for fits with a bias alone.
        device: of the work (None: that of the features).
        ranks: the processes that share the fit; each gives its own rows.

    Raises:
        ValueError: there are not n rows whose columns the blocks add up to.

    Example:
        >>> gram = compute_sample_gram(x, len(x), block_sizes=(8184, 132))
        >>> fold = gram.select(rows)
    """
    return gram_of_rows(Rows.agree(features, n, bias=bias, device=device, ranks=ranks), block_sizes, bias=bias)


def gram_of_rows(rows: Rows, block_sizes: Sequence[int] | None, *, bias: bool) -> SampleGram:
    """`compute_sample_gram` of rows that processes have agreed on: a panel of columns is gathered from all of them, and
    each multiplies its own rows."""
    sizes, mean = resolve_blocks(block_sizes, rows.d), rows.provisional_mean
    blocks = mean.new_zeros(len(sizes), rows.n, rows.n, dtype=torch.float64)
    x, start = rows.matrix(), 0
    for block, size in zip(blocks, sizes, strict=True):
        for columns in tiles(start, start + size, TILE_COLUMNS):
            panel = rows.ranks.gather(x[:, columns].to(mean.device, mean.dtype) - mean[columns])
            for part in tiles(rows.own.start, rows.own.stop, TILE_ROWS):
                block[part, : part.stop] += panel[part] @ panel[: part.stop].mT
        start += size
    rows.ranks.add_(blocks)
    for block in blocks:
        _mirror_lower_(block)
    return SampleGram(blocks, sizes, shifted=bias)
