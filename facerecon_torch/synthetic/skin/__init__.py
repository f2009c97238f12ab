"""The painted skin of synthetic people."""
