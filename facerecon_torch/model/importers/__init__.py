"""Readers of published face models. Each returns an `ImportedModel`: factors in mm on the file's own mesh, without the
tables (landmarks, contour lines, vertex sets) of a FaceTopology."""
