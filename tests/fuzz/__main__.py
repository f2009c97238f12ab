"""python -m tests.fuzz READER COUNT SEED: one reader on mutated files, within 2 GB above what the process has already.

Prints one JSON object: inputs, refused, read, and the first few faults with the bytes that caused them.
"""

import json
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

from tests.fuzz.run import Hang, fuzz

_ROOM = 2 * 10**9


def _stop(*_: object) -> None:
    raise Hang


def main(name: str, count: int, seed: int) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _stop)
    with tempfile.TemporaryDirectory() as folder:
        fuzz(name, Path(folder), 0, seed)  # loads what the reader needs
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + _ROOM, resource.RLIM_INFINITY))
        start = time.monotonic()
        told = fuzz(name, Path(folder), count, seed, alarm=True)
    sys.stdout.write(json.dumps({**told, "seconds": round(time.monotonic() - start, 1)}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
