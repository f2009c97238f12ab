"""Procedural skin textures of synthetic people."""
