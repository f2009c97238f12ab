"""`facerecon import-model`."""
