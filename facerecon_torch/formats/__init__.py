"""Byte layouts that data sets and importers of models share, and the one way in which readers report damage."""
