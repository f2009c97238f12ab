"""Seconds per stage of inference: where the time goes, without an argument in every signature on the way."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

__all__ = ["STAGES", "StageTimes", "stage", "untimed"]

STAGES = ("read", "decode", "detect", "crop", "fit", "features", "regress", "mesh", "write")


class StageTimes:
    """Seconds spent in every stage, summed over all threads; stages may overlap, so their sum may exceed the run.

    A stage that begins inside another one interrupts it. With a CUDA `device`, every stage begins and ends by waiting
    for it: the times are right and the run is slower.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._device = device if device is not None and device.type == "cuda" else None
        self._lock = threading.Lock()
        self._own = threading.local()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of a block for `name`, on this thread."""
        stack: list[str] = self._own.__dict__.setdefault("stack", [])
        self._turn(stack)
        stack.append(name)
        try:
            yield
        finally:
            self._turn(stack)
            stack.pop()

    def _turn(self, stack: list[str]) -> None:
        """Give the time since the last turn to the stage that is on."""
        if self._device is not None and threading.current_thread() is threading.main_thread():
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        if stack:
            with self._lock:
                self.seconds[stack[-1]] += now - self._own.since
        self._own.since = now

    @contextmanager
    def active(self) -> Iterator["StageTimes"]:
        """Let `stage` count here, in this context."""
        token = _CURRENT.set(self)
        try:
            yield self
        finally:
            _CURRENT.reset(token)

    def line(self) -> str:
        """`read 0.1 s, decode 2.0 s, ...` of the stages that took any time."""
        return ", ".join(f"{name} {self.seconds[name]:.2f} s" for name in STAGES if self.seconds.get(name))


_CURRENT: ContextVar[StageTimes | None] = ContextVar("stage_times", default=None)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Count the time of a block where somebody measures; else nothing."""
    times = _CURRENT.get()
    if times is None:
        yield
        return
    with times.stage(name):
        yield


@contextmanager
def untimed() -> Iterator[None]:
    """No stage counts inside: measuring may wait for the device, which a recording must not."""
    token = _CURRENT.set(None)
    try:
        yield
    finally:
        _CURRENT.reset(token)
