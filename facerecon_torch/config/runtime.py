"""The config group `runtime`: device, dtype, seed, threads and memory of a run."""

import math
import os
from dataclasses import dataclass

import torch

from facerecon_torch.checks import require_count
from facerecon_torch.geometry.mesh_queries import use_backend
from facerecon_torch.runtime.device import require_device

__all__ = ["RuntimeSpec"]

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True, kw_only=True)
class RuntimeSpec:
    """Device, dtype, seed, threads and memory of a run.

    Raises:
        ValueError: a value that the key cannot have.

    Example:
        >>> RuntimeSpec(device="cpu", threads=2).apply()
        device(type='cpu')
    """

    device: str = "auto"  # auto: cuda where there is one, else cpu | cpu | cuda | cuda:1
    dtype: str = "float32"
    seed: int = 0
    workers: int | None = None  # processes that render and decode; None: one per core
    threads: int | None = None  # of torch; None: torch's own choice
    memory: str | float | int = "auto"  # what a run may fill: auto, or GB
    tf32: bool = False
    deterministic: bool = False
    progress: bool = True
    half: bool = False  # store cascade weights in float16
    mesh_backend: str = "warp"  # warp | pytorch3d, where that package is installed

    def __post_init__(self) -> None:
        for name in ("workers", "threads"):
            if getattr(self, name) is not None:
                require_count(f"runtime.{name}", getattr(self, name), 1)
        require_count("runtime.seed", self.seed, 0)
        if self.memory != "auto" and (isinstance(self.memory, (str, bool)) or not 0 < self.memory < math.inf):
            raise ValueError(f"runtime.memory must be auto or a positive number of GB; got {self.memory!r}")
        if self.mesh_backend not in ("warp", "pytorch3d"):
            raise ValueError(f"runtime.mesh_backend must be warp or pytorch3d; got {self.mesh_backend!r}")
        if self.dtype not in _DTYPES:
            raise ValueError(f"runtime.dtype must be one of {', '.join(_DTYPES)}; got {self.dtype!r}")

    @property
    def torch_dtype(self) -> torch.dtype:
        return _DTYPES[self.dtype]

    def apply(self) -> torch.device:
        """The device, after threads, TF32, determinism and the mesh backend are set for this process."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        torch.backends.cuda.matmul.allow_tf32 = self.tf32
        torch.backends.cudnn.allow_tf32 = self.tf32
        if self.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        torch.use_deterministic_algorithms(self.deterministic)
        if self.mesh_backend != "warp":  # the default starts on its first use: not every run needs it
            use_backend(self.mesh_backend)
        return self.own_device()

    def own_device(self) -> torch.device:
        """The device of this process. Under torchrun every process of a machine has its own CUDA device, unless one is
        named."""
        device = require_device(self.device)
        if device.type != "cuda" or device.index is not None or "LOCAL_RANK" not in os.environ:
            return device
        return require_device(f"cuda:{os.environ['LOCAL_RANK']}")
