"""The One-Euro filter against the paper's algorithm, one number at a time, and what it does to jitter and motion."""

import math

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.structures import Detection
from facerecon_torch.tracking.follow import FaceFollower
from facerecon_torch.tracking.one_euro import OneEuroSpec, one_euro


def slow_filter(values, times, spec):
    """Algorithm 1 of the paper for one signal of width 1."""
    share = lambda cutoff, step: 1 / (1 + 1 / (2 * math.pi * cutoff * step))  # noqa: E731
    out, speed = [values[0]], 0.0
    for k in range(1, len(values)):
        step = times[k] - times[k - 1]
        a = share(spec.speed_cutoff, step)
        speed = a * (values[k] - values[k - 1]) / step + (1 - a) * speed
        a = share(spec.min_cutoff + spec.speed * abs(speed), step)
        out.append(a * values[k] + (1 - a) * out[-1])
    return out


def test_every_signal_is_filtered_as_alone(dtype, rng, tolerance):
    signals = torch.randn(30, 3, 2, 1, generator=rng).to(dtype)
    seconds = torch.rand(30, generator=rng).to(dtype).cumsum(0) + 0.01 * torch.arange(30)
    spec = OneEuroSpec(min_cutoff=0.7, speed=0.4, speed_cutoff=1.3)
    filtered = one_euro(signals, seconds, spec)
    for i in range(3):
        for j in range(2):
            want = slow_filter(signals[:, i, j, 0].tolist(), seconds.tolist(), spec)
            assert_close(filtered[:, i, j, 0].tolist(), want, rtol=tolerance, atol=tolerance)


def test_a_turned_signal_gives_the_turned_answer(rng):
    signals = torch.randn(20, 2, generator=rng, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(2, 2, generator=rng, dtype=torch.float64))[0]
    seconds, spec = torch.arange(20) / 30, OneEuroSpec(speed=2.0)
    assert_close(one_euro(signals @ turn, seconds, spec), one_euro(signals, seconds, spec) @ turn)


def test_speed_lessens_the_lag_and_rest_the_jitter(rng):
    seconds = torch.arange(90) / 30
    ramp = 40 * (seconds - 1.5).clamp(0, 1)
    noisy = ramp + 0.3 * torch.randn(90, generator=rng)
    slow, quick = (one_euro(noisy[:, None], seconds, OneEuroSpec(speed=speed))[:, 0] for speed in (0.0, 0.5))
    assert (quick - ramp)[50:70].abs().mean() < 0.3 * (slow - ramp)[50:70].abs().mean()
    assert quick[:40].diff(n=2).std() < 0.3 * noisy[:40].diff(n=2).std()


def test_wrong_times_and_specs_are_refused():
    with pytest.raises(ValueError, match="seconds must increase"):
        one_euro(torch.zeros(3, 1), torch.tensor([0.0, 1.0, 1.0]), OneEuroSpec())
    with pytest.raises(ValueError, match=r"seconds must be \[3\]"):
        one_euro(torch.zeros(3, 1), torch.zeros(2), OneEuroSpec())
    with pytest.raises(ValueError, match="min_cutoff must be a positive number of Hz; got 0"):
        OneEuroSpec(min_cutoff=0.0)


def face(x0, side=100.0):
    return Detection(box=(x0, 0.0, x0 + side, side), score=1.0, points=torch.zeros(68, 2))


def test_the_face_that_overlaps_is_followed_past_larger_ones():
    follower = FaceFollower()
    assert follower.next([face(0.0), face(300.0, 60.0)]).box[0] == 0
    assert follower.next([face(500.0, 200.0), face(20.0)]).box[0] == 20
    assert follower.next([face(500.0, 200.0)]) is None
    assert follower.next([]) is None
    assert follower.next([face(40.0), face(500.0, 200.0)]).box[0] == 40


def test_a_face_that_stays_away_gives_place_to_the_largest():
    follower = FaceFollower()
    follower.next([face(0.0)])
    answers = [follower.next([face(500.0, 200.0)]) for _ in range(16)]
    assert [answer is not None for answer in answers] == [False] * 15 + [True]
