"""One face over the frames of a video: which detection is the same face, and its values without jitter."""
