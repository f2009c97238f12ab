"""Errors of reconstructed faces, with the alignment and the vertices they were measured on always named."""
