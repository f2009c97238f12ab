"""Faces of other systems: their files, peers that run here, and errors beside ours (docs/comparing.md)."""
