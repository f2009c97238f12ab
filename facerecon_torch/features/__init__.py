"""The features of the regressor: HOG around the projected landmarks, and landmark displacements (LD)."""
