"""What stands beside a cascade in every table, and the landmarks of the NoW protocol."""

from jaxtyping import Float
from torch import Tensor

from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.images.read import Pixels
from facerecon_torch.landmarks.detector import choose_faces
from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER, to_paper66
from facerecon_torch.metrics.scan import SEVEN_POINTS
from facerecon_torch.structures import FaceParameters

__all__ = ["SEVEN_ROWS", "baselines", "largest_face", "shapes"]

SEVEN_ROWS = [IBUG_OF_PAPER.index(number) for number in SEVEN_POINTS]
"""The rows of the protocol's seven points among the 66 landmarks."""


def baselines(face: FaceReconstructor, landmarks: Float[Tensor, "n 66 2"]) -> dict[str, FaceParameters]:
    """The mean face and the landmark fit of each image, by name."""
    model, n = face.face_model, len(landmarks)
    mean = FaceParameters(identity=model.identity_mean.expand(n, -1), expression=model.expression_mean.expand(n, -1))
    return {"mean face": mean, "landmark fit": face.solvers.fitter.fit(landmarks).parameters}


def shapes(face: FaceReconstructor, landmarks: Float[Tensor, "n 66 2"]) -> dict[str, Float[Tensor, "n V 3"]]:
    """The meshes of the baselines, mm."""
    model = face.face_model
    found = baselines(face, landmarks)
    return {name: model.vertices(one.identity, one.expression) for name, one in found.items()}


def largest_face(face: FaceReconstructor, picture: Pixels) -> Float[Tensor, "1 66 2"]:
    """The landmarks of a picture's largest face, in the precision of the model.

    Raises:
        NoFaceError: the detector finds none.
    """
    found = choose_faces(face.landmark_detector.detect([picture])[0], "largest")
    return to_paper66(found[0].points[None]).to(face.face_model.dtype)
