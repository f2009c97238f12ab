"""Readers of other people's face models. Each gives an `ImportedModel`: factors in mm on the file's own mesh, without
the tables (landmarks, contour lines, vertex sets) that a FaceModel needs."""
