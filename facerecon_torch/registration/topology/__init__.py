"""Topology of an imported face model: landmarks, contour lines and vertex sets from the registered default face."""
