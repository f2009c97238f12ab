"""The OBJ files: see `formats.quads`."""

from facerecon_torch.formats.quads import QuadMesh, read_quads, save_quads, split_quads

__all__ = ["QuadMesh", "read_quads", "save_quads", "split_quads"]
