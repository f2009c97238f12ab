"""What a person does for a scan of a class and code: expression and turn of the head."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.data.bosphorus.names import ScanName
from facerecon_torch.synthetic.layouts.action_units import unit_recipe
from facerecon_torch.synthetic.layouts.bosphorus_plan import ANGLES
from facerecon_torch.synthetic.people.sampling import POSED_FACES, pose_expression
from facerecon_torch.synthetic.procedural import between, uniform

__all__ = ["draw_angles", "draw_weights"]

_EMOTIONS = ("ANGER", "DISGUST", "FEAR", "SADNESS", "SURPRISE")
_FACES = {"HAPPY": "broad smile", **{code: code.lower() for code in _EMOTIONS}}
_REST = {"eyeSquint": 0.12, "jawOpen": 0.02, "mouthPress": 0.06, "browInnerUp": 0.08}  # nobody is quite at rest
_CLOSED_EYES = ("43", "44")


def draw_weights(names: tuple[str, ...], scan: ScanName, generator: torch.Generator) -> Float[Tensor, "exps"]:
    """Weights of the named expressions."""
    recipe: dict[str, float] = {}
    if scan.kind == "E":
        recipe = POSED_FACES[_FACES[scan.code]]
    elif scan.kind in ("LFAU", "UFAU", "CAU"):
        recipe = unit_recipe(scan.code)
    elif scan.kind == "IGN":
        recipe = POSED_FACES["talk"]
    made = pose_expression(names, recipe, uniform(generator, 0.85, 1.1), generator)
    if scan.code in _CLOSED_EYES:  # whoever was told to close the eyes has closed them
        made[[names.index("eyeBlinkLeft"), names.index("eyeBlinkRight")]] = 1.0
    return torch.maximum(made, pose_expression(names, _REST, uniform(generator), generator))


def draw_angles(scan: ScanName, generator: torch.Generator) -> Float[Tensor, "3"]:
    """Yaw, pitch and roll in rad: what was asked for, and how well it was done."""
    yaw, pitch = ANGLES.get(scan.code, (0.0, 0.0)) if scan.kind in ("YR", "PR", "CR") else (0.0, 0.0)
    loose = 2.5 if (yaw, pitch) == (0.0, 0.0) else 3.5
    yaw += between(generator, 0.0, loose, -8.0, 8.0) if abs(yaw) < 80 else between(generator, 0.0, 2.0, -5.0, 5.0)
    pitch += between(generator, 0.0, loose, -8.0, 8.0)
    return torch.tensor([yaw, pitch, between(generator, 0.0, 1.5, -5.0, 5.0)]) * (math.pi / 180)
