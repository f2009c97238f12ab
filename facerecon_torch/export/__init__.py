"""Meshes and parameters to files; every file is written aside and renamed, so none is ever half there."""

from facerecon_torch.export.glb import save_glb
from facerecon_torch.export.obj import save_obj
from facerecon_torch.export.parameters import FaceRecord, save_parameters_json, save_parameters_parquet
from facerecon_torch.export.ply import save_ply

__all__ = [
    "FaceRecord",
    "save_glb",
    "save_obj",
    "save_parameters_json",
    "save_parameters_parquet",
    "save_ply",
]
