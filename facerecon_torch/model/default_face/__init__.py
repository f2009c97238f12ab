"""The free default face, made from MakeHuman's CC0 data."""

from facerecon_torch.model.default_face.shapes import FaceSource, load_source
from facerecon_torch.model.default_face.sliders import Identities, sample_identities

__all__ = ["FaceSource", "Identities", "load_source", "sample_identities"]
