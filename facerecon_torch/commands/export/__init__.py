"""`facerecon export-cascade` and `facerecon export-parameters`."""
