"""Faces with drawn values, as inference hands them to the writers."""

import torch

from facerecon_torch.cascade.plausibility import Plausibility
from facerecon_torch.export import FittedFaces
from facerecon_torch.structures import Camera, FaceParameters


def drawn_faces(n, n_names, rng, n_identity=50, n_expression=25):
    def draw(*shape):
        return torch.randn(n, *shape, generator=rng)

    degenerate, scores = torch.arange(n) % 2 == 1, draw().double()
    return FittedFaces(
        boxes=draw(4).double().cumsum(-1),
        scores=scores,
        parameters=FaceParameters(identity=draw(n_identity), expression=draw(n_expression)),
        expression_weights=draw(n_names).abs(),
        camera=Camera(rotation=draw(3, 3), scale=draw().exp(), translation=draw(2), degenerate=degenerate),
        landmarks_2d=draw(66, 2),
        landmarks_3d=draw(66, 3),
        projected_2d=draw(66, 2),
        plausibility=Plausibility(
            residual=5 * draw().abs(),
            contour_residual=9 * draw().abs(),
            shape_distance=draw().abs(),
            view_angle=60 * draw().abs(),
            proportion=draw().sigmoid(),
            reprojection=3 * draw().abs(),
            disagreement=draw().abs(),
            pose_excess=draw().abs(),
            score=scores,
            predicted_error=draw().exp(),
            unsure=scores < 0.75,
            degenerate=degenerate,
        ),
    )
