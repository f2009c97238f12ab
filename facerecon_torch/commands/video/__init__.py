"""`facerecon video`."""
