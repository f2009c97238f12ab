"""facerecon_torch."""
