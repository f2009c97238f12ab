"""The networks with the weights that the package brings."""

import importlib.resources
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file
from torch import nn

from facerecon_torch.runtime.precision import in_own_precision

__all__ = ["load_network", "weight_file"]

_Network = TypeVar("_Network", bound=nn.Module)


def weight_file(name: str) -> Path:
    """The file with the weights of a network."""
    return Path(str(importlib.resources.files("facerecon_torch"))) / "assets" / "mediapipe" / f"{name}.safetensors"


@in_own_precision
def load_network(network: type[_Network], name: str) -> _Network:
    """A network with its published weights in float32, for inference."""
    with torch.inference_mode(False):
        built = network()
        built.load_state_dict({key: value.float() for key, value in load_file(weight_file(name)).items()})
        return built.eval().requires_grad_(False).to(memory_format=torch.channels_last)
