"""Rendered photographs and range scans of synthetic people."""
