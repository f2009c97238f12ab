"""`facerecon view`."""
