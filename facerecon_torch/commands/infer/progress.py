"""Progress of a run: the progress bar, and progress.json for other programs."""

import time
from collections import Counter
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from facerecon_torch.commands.infer.parts import RunCounts
from facerecon_torch.commands.own_files import PROGRESS_FORMAT
from facerecon_torch.files import is_disk_full, write_json

__all__ = ["Progress", "progress_file"]

_EVERY = 2.0  # seconds between two versions of progress.json


def progress_file(output: Path, worker: int, workers: int) -> Path:
    """progress.json, of several workers progress-I-of-N.json."""
    return output / ("progress.json" if workers == 1 else f"progress-{worker}-of-{workers}.json")


class Progress:
    """Shows and stores how many inputs have their outcome.

    Args:
        file: of `progress_file`.
        total: inputs of this worker.
        done: counts of the shards that were committed before.
        shown: whether there is a bar.
    """

    def __init__(self, file: Path, total: int, done: RunCounts, *, shown: bool) -> None:
        self._file, self._total = file, total
        self._counts, self._before = RunCounts(Counter(done.statuses), done.faces), done.inputs
        self._running, self._failing = 0, 0  # inputs of the shard in work, and those that failed
        self._began = time.monotonic()
        self._last = -_EVERY
        self._bar: tqdm[NoReturn] = tqdm(
            total=total, initial=self._before, desc="faces", unit="image", disable=not shown, smoothing=0.05
        )
        self.write("running")

    def advance(self, failures: int) -> None:
        """One more input of the shard in work was searched; so many of them failed."""
        self._running += 1
        self._failing = failures
        self._bar.update()
        self._bar.set_postfix(failed=self._counts.failures + failures, refresh=False)
        if time.monotonic() - self._last >= _EVERY:
            self.write("running")

    def commit(self, counts: RunCounts) -> None:
        """A shard was committed."""
        self._counts.add(counts)
        self._bar.update(max(counts.inputs - self._running, 0))
        self._running = self._failing = 0
        self.write("running")

    def write(self, state: str) -> None:
        """Store the state `running`, `stopped` or `finished`."""
        self._last = time.monotonic()
        done = self._counts.inputs + self._running
        seconds = self._last - self._began
        rate = (done - self._before) / seconds if seconds else 0.0
        content = {
            "format": PROGRESS_FORMAT, "version": 1, "state": state, "inputs": self._total, "done": done,
            "committed": self._counts.inputs, "failed": self._counts.failures + self._failing,
            "faces": self._counts.faces, "statuses": dict(sorted(self._counts.statuses.items())),
            "seconds": round(seconds, 3), "inputs_per_second": round(rate, 3),
            "seconds_left": round((self._total - done) / rate, 1) if rate else None, "time": round(time.time(), 1),
        }  # fmt: skip
        write_json(self._file, content)

    def close(self, state: str) -> None:
        """Store the last state and end the bar."""
        self._bar.close()
        try:
            self.write(state)
        except OSError as error:
            if not is_disk_full(error):  # of which the run itself tells
                raise
