"""The threads whose tasks may be given up."""

import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError

import numpy as np
import pytest

from facerecon_torch.errors import TimeLimitError
from facerecon_torch.runtime.time_limit import DaemonPool, result_within


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Cycles stay: what is freed is freed because nothing holds it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


_FAILS = """
import gc, time, weakref
from facerecon_torch.runtime.time_limit import DaemonPool, result_within

class Large: pass

def fail(large):
    raise ValueError("refused")

gc.disable()
with DaemonPool(1) as pool:
    for seconds in (None, 5.0):
        given = Large()
        known = weakref.ref(given)
        job = pool.submit(fail, given)
        del given
        try:
            result_within(job, seconds)
        except ValueError:
            pass
        del job
        end = time.monotonic() + 5
        while known() is not None and time.monotonic() < end:
            time.sleep(0.01)
        print(known() is None)
"""


class _Large:
    """Something that a weak reference can point to."""


@pytest.mark.parametrize("seconds", [None, 5.0])
@pytest.mark.usefixtures("uncollected")
def test_nothing_holds_a_result_that_was_taken(seconds: float | None) -> None:
    with DaemonPool(1) as pool:
        result = result_within(pool.submit(_Large), seconds)
        known = weakref.ref(result)
        del result
        assert _gone(known)


def test_nothing_holds_a_call_that_failed() -> None:
    # In a process of its own: the type checks of the tests hold arguments in frames of theirs.
    done = subprocess.run([sys.executable, "-c", _FAILS], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True\nTrue\n", "")


def test_a_task_that_takes_too_long_is_given_up_and_the_pool_goes_on() -> None:
    release = threading.Event()
    with DaemonPool(1) as pool:
        slow = pool.submit(release.wait, 30.0)
        with pytest.raises(TimeLimitError, match=r"longer than 0\.1 s"):
            result_within(slow, 0.1)
        assert result_within(pool.submit(np.add, 2, 3), 5.0) == 5  # on a thread in its place
        release.set()
        assert slow.result(timeout=5.0) is True


def test_the_limit_counts_from_the_beginning_of_the_task() -> None:
    with DaemonPool(1) as pool:
        first = pool.submit(time.sleep, 1.0)
        second = pool.submit(pow, 2, 3)
        assert result_within(second, 0.7) == 8  # it waited longer than it may take
        assert first.done()


def test_a_result_that_comes_at_the_last_moment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    with DaemonPool(1) as pool:
        job = pool.submit(pow, 2, 3)
        assert job.result(timeout=5.0) == 8
        real, calls = type(job).result, []

        def late(self: Future[int], timeout: float | None = None) -> int:
            calls.append(timeout)
            if len(calls) == 1:
                raise FutureTimeoutError  # and it is done when one looks again
            return real(self, timeout)

        monkeypatch.setattr(type(job), "result", late)
        assert result_within(job, 5.0) == 8
        assert len(calls) == 2


def test_a_task_that_has_ended_is_not_left_behind() -> None:
    with DaemonPool(1) as pool:
        job = pool.submit(pow, 2, 3)
        assert job.result(timeout=5.0) == 8
        before = threading.active_count()
        assert pool.abandon(job) is False
        assert threading.active_count() == before
        assert result_within(pool.submit(pow, 3, 2), 5.0) == 9


def test_an_error_of_the_kind_of_the_clock_is_that_of_the_task() -> None:
    def fail() -> None:
        raise TimeoutError("of the network")

    with DaemonPool(1) as pool, pytest.raises(TimeoutError, match="of the network"):
        result_within(pool.submit(fail), 5.0)


def _gone(known: Callable[[], object], within: float = 5.0) -> bool:
    """Whether the object is freed soon; the pool's thread lets go of it a moment after its result is there."""
    end = time.monotonic() + within
    while known() is not None and time.monotonic() < end:
        time.sleep(0.01)
    return known() is None
