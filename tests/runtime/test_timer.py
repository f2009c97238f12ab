"""The timer, on a clock that the tests move."""

import mmap
import threading

import pytest

from facerecon_torch.runtime import timer as module
from facerecon_torch.runtime.timer import Timer, timed, untimed


class Clock:
    """Seconds that pass only when told."""

    now = 0.0

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module.time, "perf_counter", lambda: made.now)
    return made


def test_a_block_inside_another_interrupts_it(clock):
    timer = Timer()
    with timer.active(), timed("fit"):
        clock.wait(2)
        with timed("features"):
            clock.wait(5)
        clock.wait(1)
        with untimed(), timed("crop"):
            clock.wait(10)  # counts for the block around it
    with timed("fit"):  # no timer is active any more
        clock.wait(100)
    assert timer.seconds == {"fit": 13, "features": 5}
    assert timer.line() == "fit 13.00 s, features 5.00 s"


def test_threads_and_repeats_add_up(clock):
    timer = Timer()

    def work() -> None:
        with timer.timed("decode"):
            clock.wait(3)

    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    with timer.timed("decode"):
        clock.wait(1)
    assert timer.seconds == {"decode": 7}


def test_an_exception_is_timed_too(clock):
    timer = Timer()

    def fail() -> None:
        with timer.timed("fit"):
            clock.wait(2)
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    with timer.timed("crop"):
        clock.wait(1)
    assert timer.seconds == {"fit": 2, "crop": 1}


def test_memory_is_the_peak_of_the_block():
    timer = Timer(memory=True)
    with timer.timed("small"):
        pass
    with timer.timed("large"):
        pages = mmap.mmap(-1, 64 * 2**20)  # a tensor could take memory that was freed before
        pages.write(bytes(len(pages)))
    assert timer.peak_memory_mb["large"] - timer.peak_memory_mb["small"] > 0.9 * len(pages) / 2**20
    pages.close()
    assert timer.peak_device_mb == {}
    plain = Timer()
    with plain.timed("small"):
        pass
    assert plain.peak_memory_mb == {}
