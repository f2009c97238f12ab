"""Row chunks: joined, cut, grouped; never lost, never reordered."""

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.regression.streaming import group_chunks, peek_rows, row_chunks, select_rows


def source_of(x, sizes):
    return lambda: iter(x.split(sizes))


@pytest.mark.parametrize("sizes", [[10], [1] * 10, [3, 7], [0, 9, 1]], ids=str)
@pytest.mark.parametrize("rows", [1, 4, 10, 100])
def test_chunks_of_a_source_are_the_rows_in_order(sizes, rows, rng):
    x = torch.randn(10, 3, generator=rng)
    chunks = list(row_chunks(source_of(x, sizes), rows))
    assert [start for start, _ in chunks] == list(range(0, 10, min(rows, 10)))
    assert all(chunk.shape[0] <= rows for _, chunk in chunks)
    assert_close(torch.cat([chunk for _, chunk in chunks]), x, rtol=0, atol=0)


def test_chunks_of_a_tensor_are_views(rng):
    x = torch.randn(10, 3, generator=rng)
    for start, chunk in row_chunks(x, 4):
        assert chunk.data_ptr() == x[start].data_ptr()


def test_peek_takes_one_chunk_of_a_source(rng):
    x = torch.randn(10, 3, generator=rng)
    taken = []

    def source():
        for part in x.split(2):
            taken.append(part)
            yield part

    assert_close(peek_rows(source), x[:2], rtol=0, atol=0)
    assert len(taken) == 1


@pytest.mark.parametrize("streamed", [False, True], ids=["memory", "streamed"])
@pytest.mark.parametrize("sorted_groups", [False, True], ids=["mixed", "sorted"])
def test_groups_come_whole_and_once(streamed, sorted_groups, rng, monkeypatch):
    monkeypatch.setattr("facerecon_torch.regression.streaming.chunk_rows", lambda *_: 6)
    index = torch.randint(0, 7, (40,), generator=rng)
    index[:7] = torch.arange(7)
    index = index.sort().values if sorted_groups else index
    counts = torch.bincount(index)
    x = torch.randn(40, 2, generator=rng)
    seen, owners = [], []
    for samples, rows in group_chunks(source_of(x, [5] * 8) if streamed else x, index, counts):
        assert_close(rows, x[samples], rtol=0, atol=0)
        assert bool((torch.bincount(index[samples], minlength=7)[index[samples]] == counts[index[samples]]).all())
        seen.append(samples)
        owners.append(set(index[samples].tolist()))
    assert torch.cat(seen).sort().values.tolist() == list(range(40))
    assert len(owners) > 1 or not sorted_groups
    assert sum(len(owner) for owner in owners) == 7


def test_selected_rows(rng):
    x = torch.randn(10, 3, generator=rng)
    rows = torch.tensor([7, 2, 2, 9])
    source = select_rows(x, rows)
    for _ in range(2):
        assert_close(torch.cat(list(source())), x[rows], rtol=0, atol=0)


def test_bad_sources_are_refused():
    with pytest.raises(ValueError, match="must have 3 columns; got 4"):
        list(row_chunks(lambda: [torch.zeros(2, 3), torch.zeros(2, 4)]))
    with pytest.raises(ValueError, match="at least one row; got none"):
        peek_rows(list)
    with pytest.raises(ValueError, match="floating point matrix"):
        peek_rows(lambda: [torch.zeros(2, 3, dtype=torch.int64)])
    with pytest.raises(ValueError, match="floating point matrix"):
        list(row_chunks(lambda: [torch.zeros(2, 3, 4)]))
