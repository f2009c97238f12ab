"""How far the points of landmark fit and cascade lie from the detected ones on photographs, and a sheet of pictures.

    python -m benchmarks.accuracy.portraits photos=FILE,FILE sheet=sheet.png

The sheet has one row for each photograph and for scikit-image's astronaut: the photograph, the mesh of the landmark fit
and the mesh of the cascade on it, with detected points in green and those of the mesh in red. Errors are means over the
49 inner landmarks in % of the distance of the outer corners of the eyes. `cascade=FILE` and `cascade_model=FILE` take a
cascade other than the shipped one and its face model.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.geometry.projection import project, project_with_depth
from facerecon_torch.images.read import Pixels, in_unit_range, read_pixels
from facerecon_torch.images.write import save_png
from facerecon_torch.landmarks.scheme import N_INNER, interocular
from facerecon_torch.report.overlay import draw_overlay
from facerecon_torch.structures import Camera

from ..keys import read_keys
from .baselines import largest_face
from .detection import example_picture

__all__ = ["main"]

_DEFAULTS = {"photos": "", "sheet": "", "cascade": "", "cascade_model": "", "landmarks": "mediapipe"}
_SIDE = 360  # px of a picture on the sheet
_MARGIN = 0.35  # around the landmarks, share of their longer side


def main(words: Sequence[str]) -> int:
    """Print the errors of every photograph and write the sheet.

    Raises:
        ValueError: an unknown key.
        NoFaceError: a photograph without a face.
    """
    keys = _DEFAULTS | read_keys(words, _DEFAULTS)
    face = FaceReconstructor.from_pretrained(
        keys["cascade"] or None, face_model=keys["cascade_model"] or None, detector=keys["landmarks"]
    )
    files = [*filter(None, keys["photos"].split(",")), example_picture("astronaut.png")]
    rows = []
    for file in map(Path, files):
        picture = read_pixels(file)
        landmarks = largest_face(face, picture)
        detected = landmarks[0]
        answers = _answers(face, picture, landmarks)
        errors = "  ".join(f"{name} {_error(points, detected):.2f} %" for name, (_, _, points) in answers.items())
        sys.stdout.write(f"{file.name:<24}{errors}\n")
        rows.append(_row(face, picture, detected, answers))
    if keys["sheet"]:
        save_png(torch.cat(rows, -2), keys["sheet"])
    return 0


Answer = tuple[Float[Tensor, "V 3"], Camera, Float[Tensor, "66 2"]]
"""Vertices in mm, camera, and projected landmarks in px."""


def _answers(face: FaceReconstructor, picture: Pixels, detected: Float[Tensor, "1 66 2"]) -> dict[str, Answer]:
    model = face.face_model
    fitter = face.solvers.fitter
    fit = fitter.fit(detected)
    landmarks, _ = fitter.landmarks(fit.parameters, fit.camera)
    fitted = model.vertices(fit.parameters.identity, fit.parameters.expression)[0]
    found = face.reconstruct([picture], detected)
    return {
        "landmark fit": (fitted, fit.camera[0], project(landmarks, fit.camera)[0]),
        "cascade": (found.vertices[0], found.camera[0], found.projected_2d[0]),
    }


def _error(points: Float[Tensor, "66 2"], detected: Float[Tensor, "66 2"]) -> float:
    return 100 * float((points - detected)[:N_INNER].norm(dim=-1).mean() / interocular(detected))


def _row(
    face: FaceReconstructor, picture: Pixels, detected: Float[Tensor, "66 2"], answers: dict[str, Answer]
) -> Float[Tensor, "3 side width"]:
    """The photograph and the meshes on it, cut around the face."""
    triangles = face.face_model.whole_topology("a picture needs a whole model").triangles
    image = in_unit_range(picture)
    drawn = [image.expand(3, -1, -1)]
    for vertices, camera, points in answers.values():
        drawn.append(draw_overlay(image, project_with_depth(vertices, camera), triangles, detected, points))
    low, high = detected.amin(0), detected.amax(0)
    reach = (0.5 + _MARGIN) * float((high - low).max())
    x, y = ((low + high) / 2).tolist()
    rows, columns = (
        slice(max(0, round(middle - reach)), min(extent, round(middle + reach)))
        for middle, extent in ((y, image.shape[-2]), (x, image.shape[-1]))
    )
    cut = torch.stack(drawn)[..., rows, columns]
    shown = interpolate(cut, (_SIDE, _SIDE), mode="bilinear", antialias=True).clamp(0, 1)
    return torch.cat(list(shown), -1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
