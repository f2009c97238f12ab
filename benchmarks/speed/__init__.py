"""The benches of `facerecon bench`, and the rivals that they run beside."""
