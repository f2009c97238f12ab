"""`facerecon evaluate`."""
