"""Seconds and peak memory of every phase of a run."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

__all__ = ["Phases"]

_SAMPLE_SECONDS = 0.2


class Phases:
    """Collects {name: seconds} and {name: peak resident MB of this process and its children}.

    Phases of the same name add up; on CUDA the device's own peak is kept beside it.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device if device.type == "cuda" else None
        self.seconds: dict[str, float] = {}
        self.peak_memory_mb: dict[str, float] = {}
        self.peak_device_mb: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        peak = _ResidentPeak()
        if self._cuda is not None:
            torch.cuda.reset_peak_memory_stats(self._cuda)
        start = time.perf_counter()
        try:
            with peak:
                yield
        finally:
            if self._cuda is not None:
                torch.cuda.synchronize(self._cuda)
                used = torch.cuda.max_memory_allocated(self._cuda) / 2**20
                self.peak_device_mb[name] = max(used, self.peak_device_mb.get(name, 0.0))
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            self.peak_memory_mb[name] = max(peak.megabytes, self.peak_memory_mb.get(name, 0.0))


class _ResidentPeak:
    """Samples the resident memory of this process and its children on a thread."""

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
        me = psutil.Process()
        total = me.memory_info().rss
        for child in me.children(recursive=True):
            try:
                # shared pages (torch's libraries) would be counted once per worker
                total += getattr(child.memory_full_info(), "uss", 0)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        self.megabytes = max(self.megabytes, total / 2**20)
