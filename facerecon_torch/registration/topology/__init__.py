"""Landmarks, contour lines and vertex sets of an imported mesh, from the registered default face."""
