"""What every reader of a data set must keep: damaged bytes give its error or a finite result, never anything else."""

import random

import torch

from facerecon_torch.errors import DataFileError


def read_or_error(read, path, content):
    """What `read` makes of `content` at `path`: (result, None) or (None, message). Any other exception is a bug."""
    path.write_bytes(content)
    try:
        return read(path), None
    except DataFileError as error:
        message = str(error)
    assert str(path) in message
    assert "expected" in message
    return None, message


def flipped(content, count, seed=0):
    """`count` copies of `content`, each with one byte changed at random."""
    draw = random.Random(seed)
    for _ in range(count):
        place = draw.randrange(len(content))
        changed = bytearray(content)
        changed[place] ^= draw.randrange(1, 256)
        yield bytes(changed)


def all_finite(*tensors):
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
