"""Errors of reconstructed and registered faces, and their confidence intervals."""
