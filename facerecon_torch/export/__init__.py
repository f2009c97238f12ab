"""Meshes and parameters of faces in files. Every file is written aside and renamed."""

from facerecon_torch.export.glb import save_glb
from facerecon_torch.export.obj import save_obj
from facerecon_torch.export.parameters import FaceTable, FittedFaces, face_in_document, save_parameters_json
from facerecon_torch.export.ply import save_ply

__all__ = [
    "FaceTable",
    "FittedFaces",
    "face_in_document",
    "save_glb",
    "save_obj",
    "save_parameters_json",
    "save_ply",
]
