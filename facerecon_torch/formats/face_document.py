"""Marks and names of the JSON files in which `facerecon infer` leaves faces: shared by their writer and by readers."""

__all__ = ["CONVENTION_KEY", "FACE_FORMAT", "face_suffix"]

FACE_FORMAT = "facerecon-face"
"""The entry `format` of a document with one face."""
CONVENTION_KEY = "facerecon_convention"
"""The metadata of a table that holds what its landmarks mean; in a document it is the entry `convention`."""


def face_suffix(face: int) -> str:
    """The ending of the stem of a face's file: none for the first face of an image, `_face1` for the second."""
    return f"_face{face}" if face else ""
