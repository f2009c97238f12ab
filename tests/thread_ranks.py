"""Processes played by threads of one: what they say to each other goes through lists instead of sockets."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from facerecon_torch.runtime.ranks import Ranks


class Round:
    """Where all meet: everybody's word is known to everybody, and nobody speaks again before all have listened."""

    def __init__(self, world):
        self.words, self.barrier = [None] * world, threading.Barrier(world, timeout=120)

    def say(self, rank, word):
        self.words[rank] = word
        self.barrier.wait()
        heard = list(self.words)
        self.barrier.wait()
        return heard


@dataclass(frozen=True)
class ThreadRanks(Ranks):
    round: Round | None = None

    def add_(self, values):
        return values.copy_(torch.stack(self.round.say(self.rank, values.clone())).sum(0))

    def gather(self, rows):
        return torch.cat(self.round.say(self.rank, rows))

    def share(self, value):
        words = self.round.say(self.rank, value)
        if len({isinstance(word, torch.Tensor) for word in words}) > 1:  # processes would wait for one another for ever
            raise TypeError(f"all processes must share a tensor, or none; got {[type(word) for word in words]}")
        return words[0]


def together(world, work):
    """[work(ranks)] of every process."""
    meeting = Round(world)

    def run(rank):
        try:
            return work(ThreadRanks(rank, world, meeting))
        except BaseException:
            meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(world) as pool:
        return [job.result() for job in [pool.submit(run, rank) for rank in range(world)]]
