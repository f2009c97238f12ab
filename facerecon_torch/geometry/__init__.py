"""Rotations, projection, alignment and mesh operations; knows nothing of faces."""
