"""A world in which landmarks come from the tiny face and the pictures show, at every landmark, a blob whose brightness
tells the first identity weight: a cascade that reads HOG can learn it, the landmark fit cannot."""

import torch

from facerecon_torch.cascade.checkpoint import ReconstructorSpec
from facerecon_torch.cascade.feature_cache import encode_crops
from facerecon_torch.commands.train.first_stage import TrainSetup
from facerecon_torch.commands.train.samples import Samples
from facerecon_torch.features.hog.spec import HogSpec
from facerecon_torch.features.joint import JointSpec
from facerecon_torch.fitting.crop import CropSpec
from facerecon_torch.fitting.landmark_fit import LandmarkFitter
from facerecon_torch.geometry.projection import project
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.regression import CascadeSpec, RidgeSpec
from facerecon_torch.structures import Camera, FaceParameters
from tests.tiny_model import tiny_bilinear

SIZE = 160


def make_setup(evaluation: str = "dense") -> TrainSetup:
    hog = HogSpec(patch_px=32, cell_px=16, evaluation=evaluation)
    return TrainSetup(
        tiny_bilinear(),
        ReconstructorSpec(crop=CropSpec(size=SIZE, px_per_mm=0.7), features=JointSpec(hog=hog), convention="ibug"),
        CascadeSpec(stages=2, ridge=RidgeSpec(block_weights_grid=((1.0, 1.0),))),
    )


def draw_faces(setup, people: int, images: int, generator: torch.Generator) -> FaceParameters:
    model = setup.model

    def normal(mean, variance, rows):
        return mean + variance.sqrt() * torch.randn(rows, len(mean), generator=generator)

    identity = normal(model.identity_mean, model.identity_variance, people).repeat_interleave(images, 0)
    expression = normal(model.expression_mean, model.expression_variance, people * images)
    return FaceParameters(*model.fix_gauge(identity, expression))


def make_samples(setup, *, people: int, images: int, seed: int, first_subject: int = 0, noise: float = 0.7) -> Samples:
    generator = torch.Generator().manual_seed(seed)
    faces = draw_faces(setup, people, images, generator)
    n = people * images
    yaw, pitch, roll = (torch.rand(3, n, generator=generator) - 0.5) * torch.tensor([1.0, 0.4, 0.3])[:, None]
    camera = Camera(
        rotation=euler_to_matrix(yaw, pitch, roll),
        scale=torch.full((n,), 0.7),
        translation=torch.full((n, 2), (SIZE - 1) / 2),
        degenerate=torch.zeros(n, dtype=torch.bool),
    )
    points, _ = LandmarkFitter(setup.model, setup.spec.fit).landmarks(faces, camera)
    landmarks = project(points, camera)
    crops = blobs(landmarks, faces.identity[:, 0], setup.model)
    seen = landmarks + noise * torch.randn(landmarks.shape, generator=generator)
    subjects = first_subject + torch.arange(people).repeat_interleave(images)
    meshes = setup.model.vertices(faces.identity, faces.expression)
    hog = setup.spec.features.hog
    return Samples(
        name="tiny",
        landmarks=seen,
        table=encode_crops(crops, hog),
        rows=torch.arange(n),
        hog=hog,
        parameters=faces,
        subjects=subjects,
        places=torch.arange(n),
        meshes=meshes,
    )


def blobs(landmarks: torch.Tensor, weight: torch.Tensor, model) -> torch.Tensor:
    line = torch.arange(SIZE, dtype=torch.float32)
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)
    contrast = torch.sigmoid((weight - model.identity_mean[0]) / model.identity_variance[0].sqrt())
    pictures = []
    for points, strength in zip(landmarks[:, ::6], contrast):
        distance = torch.cdist(grid.reshape(-1, 2), points).amin(1).reshape(SIZE, SIZE)
        # rings whose spacing tells the weight: HOG is blind to contrast, not to frequency
        pictures.append(0.5 + 0.4 * torch.sin(distance * (0.3 + 0.5 * strength)))
    return torch.stack(pictures)[:, None].expand(-1, 3, -1, -1).contiguous()
