"""Time limits: threads whose tasks may be given up, and work of the main thread that is interrupted.

Python cannot end a thread. A task that takes too long is left behind on its thread, a new thread takes its place, and
neither keeps the process from ending.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from facerecon_torch.errors import TimeLimitError

__all__ = ["DaemonPool", "result_within", "time_limit"]

_P = ParamSpec("_P")
_T = TypeVar("_T")
_LOOK = 0.05  # seconds between two looks at a task that has not begun


class _Task:
    """A call on a thread of the pool, and the moment at which it began."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call, self.future = call, Future[Any]()
        self.began: float | None = None
        self.abandoned = False


class DaemonPool(Executor):
    """Threads that end with the process, whatever they are doing.

    Args:
        threads: that work at a time; those that are given up come on top.

    Example:
        >>> with DaemonPool(2) as pool:
        ...     result_within(pool.submit(pow, 2, 3), 1.0)
        8
    """

    def __init__(self, threads: int) -> None:
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._threads = threads
        self._closed = False
        for _ in range(threads):
            self._start()

    def _start(self) -> None:
        threading.Thread(target=self._work, daemon=True, name="facerecon-pool").start()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            if not task.future.set_running_or_notify_cancel():
                continue
            task.began = time.monotonic()
            try:
                result = task.call()
            except BaseException as error:
                task.future.set_exception(error)
            else:
                task.future.set_result(result)
            if task.abandoned:  # another thread works in this one's place
                return
            del task

    def submit(self, call: Callable[_P, _T], /, *args: _P.args, **keywords: _P.kwargs) -> Future[_T]:
        """The future of a call; `result_within` gives it up after a while."""
        if self._closed:
            raise RuntimeError("the pool is closed")
        task = _Task(lambda: call(*args, **keywords))
        task.future.__dict__["task"], task.future.__dict__["pool"] = task, self
        self._tasks.put(task)
        return task.future

    def abandon(self, future: Future[Any]) -> None:
        """Leave a running task behind: a new thread takes the place of its own."""
        future.__dict__["task"].abandoned = True
        self._start()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end after the tasks that are queued; none is waited for."""
        if not self._closed:
            self._closed = True
            for _ in range(self._threads):
                self._tasks.put(None)


def result_within(future: Future[_T], seconds: float | None) -> _T:
    """The result of a future; one of a `DaemonPool` is given up `seconds` after its task began.

    Raises:
        TimeLimitError: the task took longer.
        Exception: what the task raised.
    """
    task: _Task | None = future.__dict__.get("task")
    if seconds is None or task is None:
        return future.result()
    while True:
        left = _LOOK if task.began is None else task.began + seconds - time.monotonic()
        try:
            return future.result(timeout=max(left, 0.0))
        except FutureTimeoutError:
            if future.done():  # the task raised it
                raise
            if task.began is not None and time.monotonic() >= task.began + seconds:
                future.__dict__["pool"].abandon(future)
                raise TimeLimitError(f"it took longer than {seconds:g} s") from None


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Interrupt the body after `seconds` with TimeLimitError, where it is the main thread's and the system has SIGALRM.

    A call of native code is not interrupted; the error comes when it returns.
    """
    possible = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if seconds is None or not possible:
        yield
        return

    def stop(*_: object) -> None:
        raise TimeLimitError(f"it took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
