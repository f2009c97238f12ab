"""One identity per person from the columns of a table of results, without the photographs."""

from collections.abc import Mapping

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from facerecon_torch.cascade.reconstruction import KnownSize, Reconstruction, extent
from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.structures import Camera, FaceParameters

__all__ = ["join_columns"]

_NEEDED = ("alpha", "beta", "rotation", "landmarks_2d")


def join_columns(
    columns: Mapping[str, Shaped[Tensor, "n *_"]],
    subject: Int[Tensor, "rows"],
    model: FaceReconstructor,
    *,
    size: KnownSize | None = None,
) -> dict[str, Shaped[Tensor, "n *_"]]:
    """The columns of the rows with one alpha per person, as `FaceReconstructor.join` gives them; all people together.

    Args:
        columns: `alpha` [n, identities], `beta` [n, expressions], `rotation` of the cameras [n, 9], `landmarks_2d`
            [n, 66, 2] in px, NaN where missing, and, if there is one, `degenerate` [n].
        subject: number of each row's person.
        model: that made the rows.
        size: of the faces, where it is known; None: the model's.

    Returns:
        `alpha`, `beta`, `expression_weights` [n, names], `rotation` [n, 9], `scale`, `translation`, `degenerate`,
        `landmarks_3d`, `projected_2d`, and of `JointIdentity` `subject_pictures`, `subject_distance_mm`,
        `subject_spread_mm`, `subject_stranger` and `subject_mixed`.

    Raises:
        ValueError: a column is missing, or not one subject per row.

    Example:
        >>> joined = join_columns(columns, torch.tensor([0, 0, 1]), model)
    """
    if missing := [name for name in _NEEDED if name not in columns]:
        raise ValueError(f"columns must hold {', '.join(_NEEDED)}; missing are {', '.join(missing)}")
    alpha, beta, rotation, landmarks = (columns[name].to(model.device, model.dtype) for name in _NEEDED)
    n = len(alpha)
    ones = alpha.new_ones(n)
    degenerate = columns.get("degenerate", torch.zeros(n, dtype=torch.bool)).to(model.device)
    camera = Camera(
        rotation=rotation.reshape(n, 3, 3), scale=ones, translation=alpha.new_zeros(n, 2), degenerate=degenerate
    )
    unknown = alpha.new_zeros(n, 66, 3)
    faces = Reconstruction(
        parameters=FaceParameters(alpha, beta), camera=camera, landmarks_3d=unknown, projected_2d=unknown[..., :2],
        size=ones, landmarks=landmarks, boxes=extent(landmarks), scores=ones, disagreement=torch.zeros_like(ones),
        face_model=model.face_model, naming=model.naming, convention=model.spec.convention,
    )  # fmt: skip
    joined, person = model.join(faces, subject, size=size)
    weights = list(joined.expression_weights.values())
    return {
        "alpha": joined.parameters.identity,
        "beta": joined.parameters.expression,
        "expression_weights": torch.stack(weights, -1) if weights else alpha.new_empty(n, 0),
        "rotation": joined.camera.rotation.reshape(n, 9),
        "scale": joined.camera.scale,
        "translation": joined.camera.translation,
        "degenerate": joined.camera.degenerate,
        "landmarks_3d": joined.landmarks_3d,
        "projected_2d": joined.projected_2d,
        "subject_pictures": person.pictures,
        "subject_distance_mm": person.distance,
        "subject_spread_mm": person.spread,
        "subject_stranger": person.stranger,
        "subject_mixed": person.mixed,
    }
