"""Meshes and parameters of faces in files. Every file is written aside and renamed."""

from facerecon_torch.export.face_table import FaceTable, ImageRow
from facerecon_torch.export.meshes import save_glb, save_obj, save_ply
from facerecon_torch.export.parameters import FittedFaces, face_in_document, save_parameters_json

__all__ = [
    "FaceTable",
    "FittedFaces",
    "ImageRow",
    "face_in_document",
    "save_glb",
    "save_obj",
    "save_parameters_json",
    "save_ply",
]
