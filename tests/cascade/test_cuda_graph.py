"""A session gives the faces of `FaceReconstructor.reconstruct`, recorded or step by step."""

from copy import deepcopy

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.cascade.cuda_graph import LatencySession, Replayed
from facerecon_torch.cascade.reconstruction import KnownSize


def assert_same(one, other, atol):
    assert_close(one.parameters.flat, other.parameters.flat, rtol=0, atol=atol)
    assert_close(one.projected_2d, other.projected_2d, rtol=0, atol=10 * atol)
    assert_close(one.landmarks_3d, other.landmarks_3d, rtol=0, atol=10 * atol)
    assert_close(one.camera.rotation, other.camera.rotation, rtol=0, atol=atol)
    assert torch.equal(one.camera.degenerate, other.camera.degenerate)
    assert_close(one.size, other.size)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_session_equals_the_plain_call(photographs, tiny_outcome, device, batch):
    images, landmarks = photographs
    model, size = deepcopy(tiny_outcome.reconstructor).to(device), KnownSize(interpupillary_mm=63.0)
    session = LatencySession(model, batch=batch, size=size)
    for k in range(0, len(images) - batch + 1, batch):
        part = slice(k, k + batch)
        answer = session(images[part], landmarks[part])
        assert_same(answer, model.reconstruct(images[part], landmarks[part], size=size), atol=1e-5)


def test_an_answer_outlives_the_next_call(photographs, tiny_outcome, device):
    images, landmarks = photographs
    session = LatencySession(deepcopy(tiny_outcome.reconstructor).to(device))
    first = session(images[:1], landmarks[:1])
    kept = first.parameters.flat.clone()
    session(images[1:2], landmarks[1:2])
    assert torch.equal(first.parameters.flat, kept)


def test_another_number_of_faces_is_refused(photographs, tiny_outcome):
    images, landmarks = photographs
    with pytest.raises(ValueError, match="for 1 faces at once; got 2 images and 2 rows"):
        LatencySession(tiny_outcome.reconstructor)(images[:2], landmarks[:2])
    with pytest.raises(ValueError, match="batch must be at least 1; got 0"):
        LatencySession(tiny_outcome.reconstructor, batch=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_recording_is_replayed_on_new_values_and_refuses_new_shapes():
    twice = Replayed("twice", lambda x: 2 * x)
    x = torch.arange(3.0, device="cuda")
    for k in range(3):
        assert torch.equal(twice(x + k), 2 * (x + k))
    assert twice.is_recorded
    with pytest.raises(ValueError, match="twice was recorded for"):
        twice(torch.zeros(4, device="cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_cannot_be_recorded_runs_step_by_step_and_says_so_once(caplog):
    reads = Replayed("a host read", lambda x: x * float(x.sum()))
    x, stream = torch.ones(3, device="cuda"), torch.cuda.current_stream()
    for _ in range(2):
        assert torch.equal(reads(x), 3 * x)
    assert not reads.is_recorded
    assert torch.cuda.current_stream() == stream
    assert len([r for r in caplog.records if "a host read cannot be recorded" in r.getMessage()]) == 1
