"""Data sets as lists of photographs with ground truth, and the ways to split them by subject."""
