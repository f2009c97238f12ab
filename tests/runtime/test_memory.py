"""Free memory, and work that goes on in halves."""

import logging
from itertools import chain
from types import SimpleNamespace

import psutil
import pytest
import torch

from facerecon_torch.runtime import memory
from facerecon_torch.runtime.memory import free_bytes, halve_on_out_of_memory, is_out_of_memory


@pytest.fixture(autouse=True)
def _not_said():
    memory._say_once.cache_clear()


def _limited(most, seen):
    """Work that runs out of memory with more than `most` rows."""

    def work(part):
        seen.append(part.stop - part.start)
        if part.stop - part.start > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 TiB")
        return list(range(part.start, part.stop))

    return work


@pytest.mark.parametrize("most", [1, 3, 8, 50])
def test_every_row_is_done_once_in_order_whatever_fits(most):
    answers = halve_on_out_of_memory(_limited(most, []), range(5, 42), 20)
    assert list(chain(*answers)) == list(range(5, 42))
    assert max(map(len, answers)) <= min(most, 20)


def test_later_pieces_start_with_what_fitted(caplog):
    seen = []
    with caplog.at_level(logging.WARNING):
        halve_on_out_of_memory(_limited(5, seen), range(40), 16)
    assert seen[:3] == [16, 8, 4]
    assert set(seen[2:]) == {4}
    assert len(caplog.records) == 1


def test_what_one_row_cannot_have_is_raised():
    with pytest.raises(torch.cuda.OutOfMemoryError):
        halve_on_out_of_memory(_limited(0, []), range(4), 4)


def test_other_errors_pass():
    def work(part):
        raise RuntimeError("expected scalar type Float")

    with pytest.raises(RuntimeError, match="scalar type"):
        halve_on_out_of_memory(work, range(4), 4)


def test_a_failed_allocation_of_the_cpu_is_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(ValueError("can't allocate memory"))


def test_free_bytes_are_those_of_the_machine_or_the_container(monkeypatch, tmp_path):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=12345))
    monkeypatch.setattr(memory, "_CONTROL_GROUP", tmp_path)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    cpu = torch.device("cpu")
    assert free_bytes(cpu) == 12345
    (tmp_path / "memory.current").write_text("4000\n")
    for limit, left in (("max", 12345), ("10000", 6000), ("3000", 0)):
        (tmp_path / "memory.max").write_text(limit + "\n")
        assert free_bytes(cpu) == left
    (tmp_path / "memory.max").write_text("10000\n")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_bytes(cpu) == 1500
