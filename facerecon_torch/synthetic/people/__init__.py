"""Synthetic people: how they look, and the moments in which they are photographed."""
