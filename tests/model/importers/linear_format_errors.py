"""What every importer keeps: damaged bytes give its error, or a model of the right shapes in finite numbers."""

import random

import torch

from facerecon_torch.errors import ModelFileError


def model_or_error(read, path, content):
    """The message of the error, or None for a sound model. Any other exception is a bug."""
    path.write_bytes(content)
    try:
        imported = read()
    except ModelFileError as error:
        message = str(error)
        assert str(path.parent) in message
        assert "expected" in message
        assert "got" in message
        return message
    assert all(bool(torch.isfinite(array).all()) for array in imported.factors.values())
    model = imported.make_model(None)
    neutral = model.vertices(torch.zeros(model.n_identity), torch.zeros(model.n_expression))
    assert neutral.shape == imported.factors["mean"].shape
    return None


def survives(read, path, *, every, flips):
    """Reads the file cut at every so many bytes, then with single bytes flipped; (cuts with an error, cuts)."""
    content = path.read_bytes()
    assert model_or_error(read, path, content) is None
    cuts = [content[:size] for size in range(0, len(content), every)]
    told = sum(model_or_error(read, path, cut) is not None for cut in cuts)
    draw = random.Random(0)
    for _ in range(flips):
        changed = bytearray(content)
        changed[draw.randrange(len(content))] ^= draw.randrange(1, 256)
        model_or_error(read, path, bytes(changed))
    return told, len(cuts)
