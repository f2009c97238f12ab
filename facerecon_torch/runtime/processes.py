"""What processes that share work have in common: one torch thread each, and no worker that outlives its parent."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process

import torch

__all__ = ["end_with_parent", "one_thread"]


@contextmanager
def one_thread() -> Iterator[None]:
    """As in a worker: sums of floats depend on the number of torch threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def end_with_parent() -> None:
    """End this process with its parent: one that is killed cannot stop its workers, who would wait for their next work
    for ever."""
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
