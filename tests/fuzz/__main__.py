"""python -m tests.fuzz READER COUNT SEED: one reader on mutated files, within 2 GB above what the process has already.

Prints one JSON object: inputs, refused, read, and the first few faults with the bytes that caused them.
"""

import json
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from facerecon_torch.errors import FaceReconError
from tests.fuzz.mutate import mutations
from tests.fuzz.readers import READERS, tensors

_SECONDS = 5
_ROOM = 2 * 10**9


class _Hang(BaseException):
    pass


def _stop(*_: object) -> None:
    raise _Hang


def _ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether an allocation failed anywhere behind an error."""
    while error is not None:
        if isinstance(error, MemoryError) or "alloc" in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False


def _outcome(read: Any) -> tuple[str, str | None]:
    """ "refused" or "read", or "fault" and what it was."""
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    try:
        value = read()
    except FaceReconError as error:
        return ("fault", "an allocation failed") if _ran_out_of_memory(error) else ("refused", None)
    except (Exception, _Hang) as error:
        return "fault", f"{type(error).__name__}: {error}"[:300]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if not all(bool(torch.isfinite(values).all()) for values in tensors(value)):
        return "fault", "NaN or infinity was handed on"
    return "read", None


def main(name: str, count: int, seed: int) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _stop)
    counts, faults = Counter[str](), []
    with tempfile.TemporaryDirectory() as folder:
        path, read = READERS[name](Path(folder))
        content = path.read_bytes()
        read()
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + _ROOM, resource.RLIM_INFINITY))
        start = time.monotonic()
        for number, changed in enumerate(mutations(content, seed, count)):
            path.write_bytes(changed)
            kind, reason = _outcome(read)
            counts[kind] += 1
            if reason is not None and len(faults) < 5:
                faults.append({"number": number, "reason": reason, "bytes": changed[:400].hex()})
    seconds = round(time.monotonic() - start, 1)
    told = {"reader": name, "seed": seed, "inputs": count, **counts, "seconds": seconds, "faults": faults}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
