"""Threads on which parts of some work are done side by side; their answers come in order.

On the CPU each lane computes on one thread. The operations on one face are small: threads that share them wait for one
another more than they work, above all beside another busy program.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

import torch

from facerecon_torch.errors import TimeLimitError
from facerecon_torch.runtime.time_limit import DaemonPool, result_within
from facerecon_torch.runtime.timer import in_step_with_device

__all__ = ["Lanes", "side_by_side"]

_MOST = 8  # lanes; beyond them Python's interpreter, which one thread has at a time, sets the pace
_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


class Lanes:
    """Threads that work at parts, each part alone.

    Args:
        device: of the work. On CUDA there is one lane: the device is shared anyway.
        seconds: that an item of a part may take; None: no limit.
        side_by_side: the work can run on several threads at once. Otherwise one lane has all of torch's threads.
        alone: one part at a time, and none is begun before the answers to the one before it were taken.

    Example:
        >>> lanes = Lanes(torch.device("cpu"), 60.0)
        >>> list(lanes.worked([[1, 2], [3]], lambda part: [2 * k for k in part]))
        [2, 4, 6]
    """

    def __init__(
        self, device: torch.device, seconds: float | None = None, *, side_by_side: bool = True, alone: bool = False
    ) -> None:
        threads, several = torch.get_num_threads(), side_by_side and not alone and device.type == "cpu"
        self.count = min(threads, _MOST) if several else 1
        self._seconds = seconds
        self._ahead = 0 if alone else self.count
        self._before = threads if self.count > 1 else None
        if self.count > 1:
            torch.set_num_threads(1)  # of the threads that begin from here on, too
        self._pool = DaemonPool(self.count)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()
        if self._before is not None:
            torch.set_num_threads(self._before)

    def worked(
        self,
        parts: Iterable[Sequence[_Item]],
        work: Callable[[Sequence[_Item]], list[_Answer]],
        late: Callable[[_Item, TimeLimitError], _Answer] | None = None,
        left_behind: Callable[[], object] = object,
    ) -> Iterator[_Answer]:
        """The answers to the items of all parts, in order.

        A part that takes too long is left behind on its thread and worked at in halves, until what takes too long
        stands alone.

        Args:
            parts: are taken as lanes become free.
            work: the answers to a part; what it raises ends everything.
            late: the answer to an item that takes too long; None: the error ends everything.
            left_behind: is called when a part is left behind. Its thread may still be at work, so that what is not made
                for several threads must be replaced here.
        """

        def begun(part: Sequence[_Item]) -> Future[list[_Answer]]:
            return self._pool.submit(copy_context().run, in_step, part)

        def in_step(part: Sequence[_Item]) -> list[_Answer]:
            with in_step_with_device():
                return work(part)

        def settled(part: Sequence[_Item], job: Future[list[_Answer]]) -> list[_Answer]:
            limit = None if self._seconds is None else self._seconds * len(part)
            try:
                return result_within(job, limit)
            except TimeLimitError as error:
                left_behind()
                if len(part) == 1:
                    if late is None:
                        raise
                    return [late(part[0], error)]
            halves = part[: len(part) // 2], part[len(part) // 2 :]
            return [answer for half in halves for answer in settled(half, begun(half))]

        waiting = deque[tuple[Sequence[_Item], Future[list[_Answer]]]]()
        try:
            for part in parts:
                waiting.append((part, begun(part)))
                if len(waiting) > self._ahead:
                    yield from settled(*waiting.popleft())
            while waiting:
                yield from settled(*waiting.popleft())
        finally:
            for _, job in waiting:
                job.cancel()


def side_by_side(items: Iterable[_Item], work: Callable[[_Item], _Answer], device: torch.device) -> Iterator[_Answer]:
    """The answers to items in order, each item worked at by itself on a lane.

    Args:
        items: are taken as lanes become free.
        work: the answer to an item; what it raises ends everything.
        device: of the work.

    Example:
        >>> list(side_by_side([1, 2, 3], lambda item: 2 * item, torch.device("cpu")))
        [2, 4, 6]
    """
    lanes = Lanes(device)
    try:
        yield from lanes.worked(([item] for item in items), lambda part: [work(item) for item in part])
    finally:
        lanes.close()
