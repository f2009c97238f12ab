"""Seconds and peak memory of named parts of a run: `with timed("crop")`."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import TypeVar

import psutil
import torch

__all__ = ["Timer", "in_step_with_device", "timed", "untimed"]

_SAMPLE_SECONDS = 0.2


class Timer:
    """Seconds of every named part of a run, and on request its peak memory.

    Blocks of one name add up, over all threads. A block inside another one interrupts it, so no moment of a thread is
    counted twice; blocks of several threads may overlap.

    Args:
        device: on a CUDA device every block of the main thread, or within `in_step_with_device`, begins and ends by
            waiting for it. Times are then right, and the run is slower.
        memory: also sample the resident memory of this process and its children, and read the device's own peak.

    Example:
        >>> timer = Timer()
        >>> with timer.active(), timed("crop"):
        ...     crops = cropper.crop(images, camera)
        >>> timer.seconds["crop"]
    """

    def __init__(self, device: torch.device | None = None, *, memory: bool = False) -> None:
        self.seconds: dict[str, float] = {}
        self.peak_memory_mb: dict[str, float] = {}
        self.peak_device_mb: dict[str, float] = {}
        self._cuda = device if device is not None and device.type == "cuda" else None
        self._memory = memory
        self._lock = threading.Lock()
        self._own = threading.local()

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """A block whose time counts for `name`, on this thread."""
        stack: list[str] = self._own.__dict__.setdefault("stack", [])
        self._switch(stack)
        self.seconds.setdefault(name, 0.0)  # parts stand in the order in which they began
        stack.append(name)
        try:
            with self._peaks(name) if self._memory else nullcontext():
                yield
        finally:
            self._switch(stack)
            stack.pop()

    def _switch(self, stack: list[str]) -> None:
        """Add the time since the last switch to the innermost block."""
        if self._cuda is not None and (_IN_STEP.get() or threading.current_thread() is threading.main_thread()):
            torch.cuda.synchronize(self._cuda)
        now = time.perf_counter()
        if stack:
            with self._lock:
                self.seconds[stack[-1]] += now - self._own.since
        self._own.since = now

    @contextmanager
    def _peaks(self, name: str) -> Iterator[None]:
        if self._cuda is not None:
            torch.cuda.reset_peak_memory_stats(self._cuda)
        resident = _ResidentPeak()
        try:
            with resident:
                yield
        finally:
            self.peak_memory_mb[name] = max(resident.megabytes, self.peak_memory_mb.get(name, 0.0))
            if self._cuda is not None:
                used = torch.cuda.max_memory_allocated(self._cuda) / 2**20
                self.peak_device_mb[name] = max(used, self.peak_device_mb.get(name, 0.0))

    @contextmanager
    def active(self) -> Iterator["Timer"]:
        """A context in which the function `timed` counts here."""
        with _held(_CURRENT, self):
            yield self

    def line(self) -> str:
        """`read 0.10 s, decode 2.00 s, ...`, in the order in which the parts began."""
        return ", ".join(f"{name} {seconds:.2f} s" for name, seconds in self.seconds.items())


_CURRENT: ContextVar[Timer | None] = ContextVar("timer", default=None)
_IN_STEP: ContextVar[bool] = ContextVar("in_step", default=False)
_T = TypeVar("_T")


@contextmanager
def _held(variable: ContextVar[_T], value: _T) -> Iterator[None]:
    """A block in which the variable has the value."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


@contextmanager
def in_step_with_device() -> Iterator[None]:
    """A block on another thread whose timed parts wait for the device, as those of the main thread do."""
    with _held(_IN_STEP, True):
        yield


@contextmanager
def timed(name: str) -> Iterator[None]:
    """A block whose time counts for `name` with the active `Timer`, if there is one."""
    timer = _CURRENT.get()
    with nullcontext() if timer is None else timer.timed(name):
        yield


@contextmanager
def untimed() -> Iterator[None]:
    """A block in which nothing is timed: timing may wait for the device, which the capture of a CUDA graph forbids."""
    with _held(_CURRENT, None):
        yield


class _ResidentPeak:
    """The peak of the resident memory of this process and its children, sampled on a thread."""

    def __init__(self) -> None:
        self.megabytes = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._sample()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        process = psutil.Process()
        total = process.memory_info().rss
        for child in process.children(recursive=True):
            try:
                # shared pages (torch's libraries) would be counted once per worker
                total += getattr(child.memory_full_info(), "uss", 0)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        self.megabytes = max(self.megabytes, total / 2**20)
