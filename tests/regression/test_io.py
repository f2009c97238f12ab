"""A cascade survives storing, in half precision to 11 bits; damaged files are refused by name."""

import json
import math

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.errors import ModelFileError
from facerecon_torch.regression import (
    Cascade,
    CascadeSpec,
    Ridge,
    Stage,
    cascade_from_tensors,
    cascade_meta,
    cascade_to_tensors,
    train_cascade,
)
from tests.regression.test_cascade import distance_to, inverse_sine


@pytest.mark.parametrize("stored", [None, torch.float16, torch.bfloat16], ids=str)
def test_storing_and_reading(stored, rng):
    observe, start, truth = inverse_sine(100, rng, torch.float32)
    groups = torch.arange(100)
    cascade, _ = train_cascade(observe, start, truth, groups, distance_to(truth), CascadeSpec(stages=3))
    tiny = cascade.stages[0].ridge.weight.clone()
    tiny[:, 0] *= 1e-9  # below the range of float16
    first = cascade.stages[0]
    stages = (Stage(Ridge(tiny, first.ridge.bias, math.inf, "dual"), first.block_sizes, first.block_scales),)
    cascade = Cascade(stages + cascade.stages[1:])
    tensors, meta = cascade_to_tensors(cascade, stored), json.loads(json.dumps(cascade_meta(cascade), allow_nan=False))
    again = cascade_from_tensors(tensors, meta)
    relative = {None: 0.0, torch.float16: 2**-11, torch.bfloat16: 2**-8}[stored]
    for ours, theirs in zip(cascade.stages, again.stages, strict=True):
        assert theirs.ridge.weight.dtype == torch.float32
        bound = relative * ours.ridge.weight.abs().amax(0) * 1.01
        assert bool(((theirs.ridge.weight - ours.ridge.weight).abs() <= bound).all())
        assert_close(theirs.ridge.bias, ours.ridge.bias, rtol=0, atol=0)
        assert (theirs.block_sizes, theirs.ridge.penalty, theirs.ridge.form) == (
            ours.block_sizes,
            ours.ridge.penalty,
            ours.ridge.form,
        )
    if stored is not None:
        assert tensors["stages.0.weight"].dtype == stored


def test_damaged_files_are_refused(rng):
    observe, start, truth = inverse_sine(100, rng)
    groups = torch.arange(100)
    cascade, _ = train_cascade(observe, start, truth, groups, distance_to(truth), CascadeSpec(stages=2))
    tensors, meta = cascade_to_tensors(cascade), cascade_meta(cascade)
    broken = {
        "stages.1.bias is missing": {k: v for k, v in tensors.items() if k != "stages.1.bias"},
        r"stages.0.weight must be .* got torch.float32 \(3, 2\)": tensors | {"stages.0.weight": torch.zeros(3, 2)},
        "stages.0.bias must be floating point": tensors | {"stages.0.bias": torch.zeros(2, dtype=torch.int64)},
        "stages.1.block_scales must be finite": tensors | {"stages.1.block_scales": torch.tensor([math.nan])},
        "do not include the tensors": tensors | {"stages.2.bias": torch.zeros(2)},
    }
    for message, damaged in broken.items():
        with pytest.raises(ModelFileError, match=message):
            cascade_from_tensors(damaged, meta)
    with pytest.raises(ModelFileError, match="list under 'stages'"):
        cascade_from_tensors(tensors, {})
    with pytest.raises(ModelFileError, match="stage 0 of meta must hold"):
        cascade_from_tensors(tensors, {"stages": [{"form": "dual"}, {}]})
