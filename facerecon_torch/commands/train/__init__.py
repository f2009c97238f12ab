"""`facerecon train`."""
