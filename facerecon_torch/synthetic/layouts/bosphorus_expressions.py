"""Expression weights and head rotations for the classes and codes of Bosphorus scans."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.data.bosphorus.names import ScanName
from facerecon_torch.synthetic.layouts.action_units import unit_recipe
from facerecon_torch.synthetic.layouts.bosphorus_plan import ANGLES
from facerecon_torch.synthetic.people.sampling import POSED_FACES, pose_expression
from facerecon_torch.synthetic.procedural import clipped_normal, uniform

__all__ = ["draw_angles", "draw_weights"]

_EMOTIONS = ("ANGER", "DISGUST", "FEAR", "SADNESS", "SURPRISE")
_FACES = {"HAPPY": "broad smile", **{code: code.lower() for code in _EMOTIONS}}
_REST = {
    "eyeSquint": 0.12,
    "jawOpen": 0.02,
    "mouthPress": 0.06,
    "browInnerUp": 0.08,
}  # largest weights of a neutral face
_CLOSED_EYES = ("43", "44")


def draw_weights(names: tuple[str, ...], scan: ScanName, generator: torch.Generator) -> Float[Tensor, "exps"]:
    """Random weights of the expressions `names` for a scan's class and code."""
    recipe: dict[str, float] = {}
    if scan.kind == "E":
        recipe = POSED_FACES[_FACES[scan.code]]
    elif scan.kind in ("LFAU", "UFAU", "CAU"):
        recipe = unit_recipe(scan.code)
    elif scan.kind == "IGN":
        recipe = POSED_FACES["talk"]
    weights = pose_expression(names, recipe, uniform(generator, 0.85, 1.1), generator)
    if scan.code in _CLOSED_EYES:
        weights[[names.index("eyeBlinkLeft"), names.index("eyeBlinkRight")]] = 1.0
    return torch.maximum(weights, pose_expression(names, _REST, uniform(generator), generator))


def draw_angles(scan: ScanName, generator: torch.Generator) -> Float[Tensor, "3"]:
    """Yaw, pitch and roll in rad: the angles of the scan's code with random deviations."""
    yaw, pitch = ANGLES.get(scan.code, (0.0, 0.0)) if scan.kind in ("YR", "PR", "CR") else (0.0, 0.0)
    loose = 2.5 if (yaw, pitch) == (0.0, 0.0) else 3.5
    yaw += (
        clipped_normal(generator, 0.0, loose, -8.0, 8.0)
        if abs(yaw) < 80
        else clipped_normal(generator, 0.0, 2.0, -5.0, 5.0)
    )
    pitch += clipped_normal(generator, 0.0, loose, -8.0, 8.0)
    return torch.tensor([yaw, pitch, clipped_normal(generator, 0.0, 1.5, -5.0, 5.0)]) * (math.pi / 180)
