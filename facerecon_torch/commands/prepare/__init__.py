"""`facerecon prepare`."""
