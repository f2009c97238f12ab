"""Meshes and parameters of faces in files. Every file is written aside and renamed."""

from facerecon_torch.export.face_table import FaceTable, ImageRow
from facerecon_torch.export.frames import depth_map, in_camera_frame
from facerecon_torch.export.glb import MorphTargets, save_glb
from facerecon_torch.export.meshes import save_obj, save_ply
from facerecon_torch.export.parameters import FittedFaces, face_in_document, save_parameters_json
from facerecon_torch.export.texture import TextureAtlas, encode_texture

__all__ = [
    "FaceTable",
    "FittedFaces",
    "ImageRow",
    "MorphTargets",
    "TextureAtlas",
    "depth_map",
    "encode_texture",
    "face_in_document",
    "in_camera_frame",
    "save_glb",
    "save_obj",
    "save_parameters_json",
    "save_ply",
]
