"""Synthetic people: shape, appearance, hair, occluders, and random poses and expressions."""
