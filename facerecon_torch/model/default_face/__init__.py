"""The free default face, built from MakeHuman's CC0 data: the bilinear model and its additive source."""

from facerecon_torch.model.default_face.build import load_default_face
from facerecon_torch.model.default_face.shapes import FaceSource, load_source, load_topology

__all__ = ["FaceSource", "load_default_face", "load_source", "load_topology"]
