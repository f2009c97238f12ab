"""Rendered images and range scans of synthetic people."""
