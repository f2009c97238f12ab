"""Targets of the default face: their rounding, and smooth displacement fields for what its sliders cannot do.

A field moves the surface around one place, or around a place and its mirror image, along one axis; its weight falls
with the distance as a Gaussian. Fields are symmetric: along x they move the two sides apart.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from facerecon_torch.model.default_face.asset import STEP_MM
from facerecon_torch.model.default_face.sliders import FIELD

__all__ = ["FIELD_SD", "quantise", "smooth_fields"]

FIELD_SD = 0.5
"""Standard deviation of a field's weight before the spreads are chosen; weight 1 moves its place by 1 mm."""
REACH_MM = 18.0
MIDDLE = {
    "forehead": (75.0, 25.0), "glabella": (33.0, 36.0), "bridge": (10.0, 42.0), "tip": (-14.0, 54.0),
    "upper-lip": (-33.0, 46.0), "lower-lip": (-52.0, 42.0), "chin": (-72.0, 38.0), "throat": (-85.0, 15.0),
}  # fmt: skip
"""Name -> y and z of places on the midline, the painter's mm."""
SIDES = {
    "upper-forehead": (35.0, 75.0, 15.0), "temple": (60.0, 45.0, 0.0), "brow": (40.0, 38.0, 28.0),
    "inner-eye": (15.0, 20.0, 26.0), "outer-eye": (42.0, 20.0, 20.0), "under-eye": (30.0, 0.0, 30.0),
    "cheekbone": (55.0, 5.0, 5.0), "nose-wing": (15.0, -20.0, 36.0), "mouth-corner": (24.0, -44.0, 33.0),
    "cheek": (42.0, -25.0, 20.0), "jaw": (40.0, -60.0, 8.0), "jaw-angle": (58.0, -45.0, -20.0),
    "before-ear": (66.0, 5.0, -35.0),
}  # fmt: skip
"""Name -> x, y and z of the place on the person's left."""
EYES = (0.0, 20.0, 25.0)
"""The middle between the inner eye corners, relative to which the places stand."""


def smooth_fields(
    vertices: Float[np.ndarray, "v 3"], marks: Int[np.ndarray, "68"]
) -> dict[str, Float[np.ndarray, "v 3"]]:
    """Name -> displacement at weight 1 of each field, mm; `vertices` and the result are MakeHuman's millimetres."""
    origin = vertices[marks[[39, 42]]].mean(0) - np.array(EYES)
    fields: dict[str, Float[np.ndarray, "v 3"]] = {}
    for name, (y, z) in MIDDLE.items():
        share = _share(vertices, origin + np.array([0.0, y, z]))
        fields |= {f"{FIELD}{name}-{axis}": share * direction for axis, direction in zip("yz", np.eye(3)[1:])}
    for name, place in SIDES.items():
        left = _share(vertices, origin + np.array(place))
        right = _share(vertices, origin + np.array(place) * (-1.0, 1.0, 1.0))
        fields[f"{FIELD}{name}-x"] = (left - right) * np.eye(3)[0]
        fields |= {f"{FIELD}{name}-{axis}": (left + right) * d for axis, d in zip("yz", np.eye(3)[1:])}
    return fields


def _share(vertices: Float[np.ndarray, "v 3"], place: Float[np.ndarray, "3"]) -> Float[np.ndarray, "v 1"]:
    return np.asarray(np.exp(-np.square(vertices - place).sum(1, keepdims=True) / (2.0 * REACH_MM**2)))


def quantise(
    targets: Mapping[str, Float[np.ndarray, "v 3"]],
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray]:
    """Names, offsets, vertices and int16 steps of targets on the kept vertices, without zero rows."""
    counts, vertices, steps = [0], [], []
    for name, dense in targets.items():
        rounded = np.rint(dense / STEP_MM)
        if np.abs(rounded).max() > np.iinfo(np.int16).max:
            raise ValueError(f"{name} must fit int16 steps; it reaches {np.abs(dense).max()} mm")
        moved = np.flatnonzero(rounded.any(1))
        counts.append(len(moved))
        vertices.append(moved)
        steps.append(rounded[moved])
    return tuple(targets), np.cumsum(counts), np.concatenate(vertices), np.concatenate(steps).astype(np.int64)
