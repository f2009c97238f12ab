"""The One-Euro filter over batches of signals: a low pass whose cut-off rises with the speed of the signal.

Casiez, Roussel, Vogel: 1 Euro Filter, CHI 2012. At rest the cut-off is low, which takes the jitter away; in fast motion
it is high, which keeps the lag small. Libraries of it filter one number at a time.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["OneEuroSpec", "one_euro"]


@dataclass(frozen=True, kw_only=True)
class OneEuroSpec:
    """Settings of the filter of a signal.

    Attributes:
        min_cutoff: cut-off at rest in Hz; lower takes more jitter away.
        speed: Hz by which the cut-off rises per unit of the signal and second; higher lessens the lag.
        speed_cutoff: cut-off in Hz of the speed itself.

    Raises:
        ValueError: a cut-off is not positive, or `speed` is negative.
    """

    min_cutoff: float | int = 1.0
    speed: float | int = 0.0
    speed_cutoff: float | int = 1.0

    def __post_init__(self) -> None:
        for name in ("min_cutoff", "speed_cutoff"):
            if not (0 < getattr(self, name) < math.inf):
                raise ValueError(f"{name} must be a positive number of Hz; got {getattr(self, name)}")
        if not (0 <= self.speed < math.inf):
            raise ValueError(f"speed must be at least 0; got {self.speed}")


def one_euro(
    signals: Float[Tensor, "frames *signals width"],
    seconds: Float[Tensor, "times"],
    spec: OneEuroSpec,
) -> Float[Tensor, "frames *signals width"]:
    """The filtered signals. All signals go through a frame together; the recursion runs over the frames alone.

    Args:
        signals: the numbers of one signal, its `width`, have one speed (the norm) and so one cut-off.
        seconds: time of every frame, strictly increasing; frames may be missing.
        spec: cut-offs.

    Raises:
        ValueError: not one time per frame, or times that do not increase.

    Example:
        >>> one_euro(torch.randn(60, 3, 1), torch.arange(60) / 30, OneEuroSpec(min_cutoff=1.0, speed=0.5))
    """
    if seconds.shape != signals.shape[:1]:
        raise ValueError(f"seconds must be [{len(signals)}], one per frame; got {list(seconds.shape)}")
    if not bool((seconds.diff() > 0).all()):
        raise ValueError("seconds must increase from frame to frame")
    elapsed = seconds.diff().tolist()
    filtered = signals.clone()
    speed = torch.zeros_like(signals[:1])
    for k in range(1, len(signals)):
        passed = elapsed[k - 1]
        moved = (signals[k] - signals[k - 1]) / passed
        speed = torch.lerp(speed, moved, _share(signals.new_tensor(spec.speed_cutoff), passed))
        cutoff = spec.min_cutoff + spec.speed * torch.linalg.vector_norm(speed[0], dim=-1, keepdim=True)
        filtered[k] = torch.lerp(filtered[k - 1], signals[k], _share(cutoff, passed).expand_as(signals[k]))
    return filtered


def _share(cutoff: Float[Tensor, "*c"], elapsed: float) -> Float[Tensor, "*c"]:
    """The weight of a new value after `elapsed` seconds: 1 / (1 + tau / elapsed), tau = 1 / (2 pi cutoff)."""
    rate = 2 * torch.pi * elapsed * cutoff
    return rate / (1 + rate)
