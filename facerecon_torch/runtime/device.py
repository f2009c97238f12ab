"""The device that a run asks for."""

import torch

__all__ = ["require_device"]


def require_device(name: str) -> torch.device:
    """The device of that name. CUDA is never silently replaced by the CPU, and MPS is refused.

    Raises ValueError where the device is unknown, unsupported or not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"runtime.device must be auto, cpu, cuda or cuda:N; got {name!r}") from None
    if device.type == "mps":
        raise ValueError("runtime.device=mps is not supported: float64 solves are missing there; use cpu")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"runtime.device must be auto, cpu, cuda or cuda:N; got {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"runtime.device={name} was asked for, but torch sees no CUDA device; use runtime.device=cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"runtime.device={name} was asked for, but there are {torch.cuda.device_count()} CUDA devices")
    return device
