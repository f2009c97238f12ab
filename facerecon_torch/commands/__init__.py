"""The commands of `facerecon`, one module or folder each."""
