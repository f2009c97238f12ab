"""Time limits: threads whose tasks may be given up.

Python cannot end a thread. A task that takes too long is left behind on its thread, a new thread takes its place, and
neither keeps the process from ending.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from facerecon_torch.errors import TimeLimitError

__all__ = ["DaemonPool", "result_within"]

_P = ParamSpec("_P")
_T = TypeVar("_T")
_LOOK = 0.05  # seconds between two looks at a task that has not begun


class _Promise(Future[_T]):
    """The future of a call on a thread of a pool; `began` is the moment at which the call did.

    It holds neither the call nor anything that holds it again: reference cycles keep results, such as pictures, until
    the garbage collector passes by, which in a process with many objects is seldom.
    """

    def __init__(self, pool: "DaemonPool") -> None:
        super().__init__()
        self.pool = pool
        self.began: float | None = None
        self.ended = self.abandoned = False  # under the lock of the pool; never both


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
        self._tasks: SimpleQueue[tuple[_Promise[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._threads = threads
        self._closed = False
        self._lock = threading.Lock()
        for _ in range(threads):
            self._start()

    def _start(self) -> None:
        threading.Thread(target=self._work, daemon=True, name="facerecon-pool").start()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            promise, call = task
            del task
            if promise.set_running_or_notify_cancel() and not self._done(promise, call):
                return  # another thread works in this one's place
            del promise, call  # nothing is held while the thread waits

    def _done(self, promise: _Promise[Any], call: Callable[[], Any]) -> bool:
        """Do the call; whether it was not left behind."""
        promise.began = time.monotonic()
        try:
            result = call()
        except BaseException as error:
            kept = self._end(promise)
            promise.set_exception(error)
        else:
            kept = self._end(promise)
            promise.set_result(result)
        finally:
            del promise, call  # an error holds this frame
        return kept

    def _end(self, promise: _Promise[Any]) -> bool:
        with self._lock:
            promise.ended = not promise.abandoned
            return promise.ended

    def submit(self, call: Callable[_P, _T], /, *args: _P.args, **keywords: _P.kwargs) -> Future[_T]:
        """The future of a call; `result_within` gives it up after a while."""
        if self._closed:
            raise RuntimeError("the pool is closed")
        promise = _Promise[_T](self)
        self._tasks.put((promise, partial(call, *args, **keywords)))
        return promise

    def abandon(self, promise: _Promise[Any]) -> bool:
        """Leave a running task behind, so that a new thread takes the place of its own; False: it has ended."""
        with self._lock:
            promise.abandoned = not promise.ended
        if promise.abandoned:
            self._start()
        return promise.abandoned

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
    promise: _Promise[_T] | None = future if isinstance(future, _Promise) else None
    try:
        if seconds is None or promise is None:
            return future.result()
        while True:
            left = _LOOK if promise.began is None else promise.began + seconds - time.monotonic()
            try:
                return promise.result(timeout=max(left, 0.0))
            except FutureTimeoutError:
                late = promise.began is not None and time.monotonic() >= promise.began + seconds
                if promise.done() or (late and not promise.pool.abandon(promise)):
                    return promise.result()  # which may be an error of this kind that the task raised
                if late:
                    raise TimeLimitError(f"it took longer than {seconds:g} s") from None
    finally:
        del future, promise  # an error holds this frame, and they the error
