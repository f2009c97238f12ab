"""Data that needs no files and takes seconds: pictures, random faces with their crops, features of low rank."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from facerecon_torch.fitting.landmark_fit import FitSpec, LandmarkFitter
from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.geometry.projection import project, rotate_to_view
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.default_face import load_default_face
from facerecon_torch.structures import Camera, FaceParameters

from .raster import rasterise

__all__ = ["Faces", "LowRank", "default_model", "draw_faces", "draw_parameters", "draw_points", "render", "waves"]

SIZE = 320  # px
PX_PER_MM = 64 / 45  # of the canonical crop
_NOISE_PX = 1.5  # of detected landmarks, about what detectors do
_MARGIN = 32


def default_model(device: torch.device, dtype: torch.dtype) -> FaceModel:
    """The default face (50 x 25 factors, 4,071 vertices), a copy of its own."""
    model: FaceModel = load_default_face()
    return model.to(device, dtype)


def draw_parameters(model: FaceModel, samples: int, *, people: int | None = None, seed: int = 0) -> FaceParameters:
    """Weights drawn from the model's own distribution, in its gauge; `people` share identities in turn."""
    rng = torch.Generator().manual_seed(seed)
    who = torch.arange(samples) * (people or samples) // max(samples, 1)
    identity = torch.randn(people or samples, model.n_identity, generator=rng)[who]
    expression = torch.randn(samples, model.n_expression, generator=rng)
    like = model.identity_mean
    alpha = model.identity_mean + model.identity_variance.sqrt() * identity.to(like)
    beta = model.expression_mean + model.expression_variance.sqrt() * expression.to(like)
    return FaceParameters(*model.fix_gauge(alpha, beta))


def waves(images: int, *, size: int = SIZE, seed: int = 0) -> Tensor:
    """Pictures [n, 3, size, size] with edges of every direction and size: sums of random waves, cut into grey levels,
    and noise."""
    rng = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    total = torch.zeros(images, 3, size, size)
    for _ in range(12):
        kx, ky, phase = 0.15 * torch.randn(3, images, 3, 1, 1, generator=rng)
        total += torch.sin(kx * x + ky * y + 40 * phase)
    noise = torch.randn(total.shape, generator=rng)
    return (0.5 + 0.05 * (2 * total).round() + 0.02 * noise).clamp(0, 1)


def draw_points(images: int, landmarks: int, *, seed: int = 1) -> Tensor:
    """Integer positions whose patches lie inside the crop."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(_MARGIN, SIZE - _MARGIN, (images, landmarks, 2), generator=rng).float()


@dataclass(frozen=True)
class Faces:
    """Random people of the model itself, seen by random cameras: truth, cameras and noisy landmarks (px of the crop).
    The model can answer exactly; what errors show is noise, penalties and regression."""

    parameters: FaceParameters
    camera: Camera
    landmarks: Tensor  # [n, 66, 2]
    subjects: Tensor  # [n]


@torch.no_grad()
def draw_faces(model: FaceModel, samples: int, *, people: int | None = None, seed: int = 0) -> Faces:
    """Faces with head turns of about 12 degrees and landmarks off by 1.5 px."""
    rng = torch.Generator().manual_seed(seed + 1)
    like = model.identity_mean
    parameters = draw_parameters(model, samples, people=people, seed=seed)
    turns = torch.tensor([12.0, 6.0, 5.0]).deg2rad() * torch.randn(samples, 3, generator=rng)
    rotation = euler_to_matrix(*turns.to(like).unbind(-1))
    scale = PX_PER_MM * (1 + 0.03 * torch.randn(samples, generator=rng)).to(like)
    shift = (SIZE - 1) / 2 + 3 * torch.randn(samples, 2, generator=rng).to(like)
    sure = torch.zeros(samples, dtype=torch.bool, device=like.device)
    camera = Camera(rotation=rotation, scale=scale, translation=shift, degenerate=sure)
    points, _ = LandmarkFitter(model, FitSpec()).landmarks(parameters, camera)
    noise = _NOISE_PX * torch.randn(samples, len(points[0]), 2, generator=rng).to(like)
    subjects = torch.arange(samples) * (people or samples) // max(samples, 1)
    return Faces(parameters, camera, project(points, camera) + noise, subjects)


@torch.no_grad()
def render(model: FaceModel, faces: Faces, rows: slice, *, seed: int = 0) -> Tensor:
    """Crops [n, 3, 320, 320] of some of the faces: random skin with dark eyes, brows and lips, lit from a random side
    (Lambert), before a random background."""
    topology = model.topology
    if topology is None:
        raise ValueError("rendering needs a whole model; this one was restricted to some vertices")
    rng = torch.Generator().manual_seed(seed * 1_000_003 + rows.start)
    parameters, camera = faces.parameters[rows], faces.camera[rows]
    n, device = len(parameters.identity), parameters.identity.device
    shape = model.vertices(parameters.identity, parameters.expression).float()
    camera = camera.to(torch.float32)
    seen = torch.cat([project(shape, camera), rotate_to_view(shape, camera)[..., 2:]], -1)
    nearest, barycentric = rasterise(seen, topology.triangles, SIZE)
    normal = vertex_normals(shape, topology.triangles) @ camera.rotation.mT
    light = torch.nn.functional.normalize(torch.randn(n, 1, 3, generator=rng) + torch.tensor([0.0, 0.5, 2.0]), dim=-1)
    shade = 0.35 + 0.65 * (normal * light.to(device)).sum(-1).clamp_min(0)
    colour = (shade[..., None] * _albedo(model, n, rng).to(device)).clamp(0, 1)
    corner = topology.triangles[nearest.clamp_min(0)]  # [n, h, w, 3]
    batch = torch.arange(n, device=device)[:, None, None, None]
    painted = (colour[batch, corner] * barycentric.float()[..., None]).sum(-2).movedim(-1, 1)
    behind = interpolate(torch.rand(n, 3, 12, 12, generator=rng), (SIZE, SIZE), mode="bicubic").to(device)
    picture = torch.where((nearest >= 0)[:, None], painted, behind.clamp(0, 1))
    noise = 0.01 * torch.randn(picture.shape, generator=rng).to(device)
    return (picture + noise).clamp(0, 1)


def _albedo(model: FaceModel, faces: int, rng: torch.Generator) -> Tensor:
    """Skin of a random tone [n, V, 3], darker near the inner landmarks of brows, eyes and lips."""
    mean = model.vertices(model.identity_mean, model.expression_mean).float().cpu()
    marks = mean[model.topology.landmark_vertices[:49].cpu()]  # type: ignore[union-attr]
    near = torch.exp(-(torch.cdist(mean, marks).amin(1) / 3.5).square())[None, :, None]
    tone = 0.35 + 0.5 * torch.rand(faces, 1, 3, generator=rng)
    mottle = 0.04 * torch.randn(faces, len(mean), 1, generator=rng)
    return (tone + mottle) * (1 - near * (0.3 + 0.4 * torch.rand(faces, 1, 3, generator=rng)))


_CPU = torch.device("cpu")


@dataclass(frozen=True)
class LowRank:
    """Features [n, d] that are never in memory whole: chunk k is F_k B / sqrt(rank) plus noise, made again at each
    reading. The noise is one table, rolled along the columns from chunk to chunk: drawing it anew would take longer
    than multiplying. Targets are linear in the factors F, with noise; `groups` are people with 12 samples each."""

    n: int
    d: int
    targets: int = 75
    rank: int = 64
    noise: float = 0.3
    chunk: int = 1024
    dtype: torch.dtype = torch.float32
    device: torch.device = _CPU
    seed: int = 0

    def _draw(self, key: int, *shape: int) -> Tensor:
        rng = torch.Generator(self.device).manual_seed(self.seed * 7919 + key)
        return torch.randn(*shape, generator=rng, device=self.device, dtype=self.dtype)

    def _rows(self) -> list[int]:
        return [min(self.chunk, self.n - start) for start in range(0, self.n, self.chunk)]

    def _factors(self, k: int, rows: int) -> Tensor:
        return self._draw(k + 3, rows, self.rank)

    def __call__(self) -> Iterator[Tensor]:
        """The chunks; a RowSource of facerecon_torch.regression."""
        basis = self._draw(0, self.rank, self.d) / self.rank**0.5
        noise = self._draw(1, self.chunk, self.d) * self.noise
        for k, rows in enumerate(self._rows()):
            yield torch.roll(noise[:rows], 37 * k, 1).addmm_(self._factors(k, rows), basis)

    @property
    def y(self) -> Tensor:
        """[n, targets]"""
        mix = self._draw(2, self.rank, self.targets) / self.rank**0.5
        parts = [self._factors(k, rows) @ mix for k, rows in enumerate(self._rows())]
        return torch.cat([part + 0.1 * self._draw(10**6 + k, *part.shape) for k, part in enumerate(parts)])

    @property
    def groups(self) -> Tensor:
        return torch.arange(self.n, device=self.device) // 12

    def matrix(self) -> Tensor:
        """All rows in memory."""
        out = torch.empty(self.n, self.d, device=self.device, dtype=self.dtype)
        for k, rows in enumerate(self()):
            out[k * self.chunk : k * self.chunk + len(rows)] = rows
        return out
