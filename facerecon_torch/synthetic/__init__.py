"""Synthetic images of the free default face: people drawn from its sliders, rendered and degraded like photos."""

from facerecon_torch.synthetic.dataset import SyntheticSet, load_set, render_set
from facerecon_torch.synthetic.spec import SyntheticSpec

__all__ = ["SyntheticSet", "SyntheticSpec", "load_set", "render_set"]
