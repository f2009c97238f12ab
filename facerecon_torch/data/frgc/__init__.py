"""FRGC v2: names of recordings, range grids, textures."""
