"""Images with the fitted mesh and the landmarks drawn on them."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.geometry.mesh_queries import MeshBackend, get_backend
from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.images.read import require_unit_range
from facerecon_torch.runtime.precision import in_own_precision

__all__ = ["OverlaySpec", "draw_dots", "draw_overlay"]

_SUPERSAMPLED_PX = 2_000_000  # largest mesh area, in image px, that is drawn with supersampling


@dataclass(frozen=True, kw_only=True)
class OverlaySpec:
    """Style of the overlay; colours are sRGB in [0, 1], `light` points from face to lamp in the viewer's axes."""

    opacity: float = 0.65
    ambient: float = 0.25
    colour: tuple[float, float, float] = (0.86, 0.9, 0.96)
    light: tuple[float, float, float] = (-0.35, 0.5, 0.8)
    landmark_colour: tuple[float, float, float] = (0.1, 1.0, 0.35)
    fitted_colour: tuple[float, float, float] = (1.0, 0.25, 0.1)
    dot: float = 0.005  # radius as a share of the mesh's larger side, at least 0.8 px
    supersample: int = 2

    def __post_init__(self) -> None:
        if not (0 <= self.opacity <= 1 and 0 <= self.ambient <= 1):
            raise ValueError(f"opacity and ambient must lie in [0, 1]; got {self.opacity} and {self.ambient}")
        if self.supersample < 1 or not self.dot > 0:
            raise ValueError(f"supersample must be at least 1 and dot positive; got {self.supersample} and {self.dot}")


@in_own_precision
def draw_overlay(
    image: Tensor,
    points_image: Tensor,
    triangles: Tensor,
    landmarks: Tensor | None = None,
    fitted_landmarks: Tensor | None = None,
    *,
    spec: OverlaySpec | None = None,
    backend: MeshBackend | None = None,
) -> Tensor:
    """The image with the mesh shaded and half transparent on it, [3, H, W].

    Args:
        image: [3, H, W] or grey [1, H, W], in [0, 1].
        points_image: [V, 3], the vertices in px and their depth towards the viewer, also in px
            (`projection.project_with_depth`). A mesh outside the image draws nothing.
        triangles: [T, 3].
        landmarks: [n, 2] in px, drawn as dots.
        fitted_landmarks: [n, 2] in px, drawn as smaller dots on top.
        spec: style; None: the defaults.
        backend: rasteriser; None: the fastest one.

    Raises:
        ValueError: another shape, an image outside [0, 1], or a value that is not finite.
    """
    require_shape("image", image, (None, None, None))
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"image must be [3, H, W] or [1, H, W]; got {tuple(image.shape)}")
    require_shape("points_image", points_image, (None, 3))
    require_shape("triangles", triangles, (None, 3))
    require_finite("points_image", points_image)
    require_unit_range(image, "the image")
    spec = OverlaySpec() if spec is None else spec
    # Not below float32: half precision would move the points of large images.
    drawn = image.expand(3, -1, -1).to(torch.promote_types(image.dtype, torch.float32), copy=True)
    points = points_image.to(drawn)
    _blend_mesh(drawn, points, triangles.to(drawn.device), spec, backend or get_backend())
    sides = points[:, :2].amax(0) - points[:, :2].amin(0)
    radius = max(0.8, spec.dot * float(sides.max()))
    for name, dots, colour, size in (
        ("landmarks", landmarks, spec.landmark_colour, radius),
        ("fitted_landmarks", fitted_landmarks, spec.fitted_colour, 0.7 * radius),
    ):
        if dots is not None:
            require_shape(name, dots, (None, 2))
            require_finite(name, dots)
            drawn = draw_dots(drawn, dots.to(drawn), colour, radius=size)
    return drawn.to(image.dtype)


def draw_dots(
    image: Float[Tensor, "3 H W"],
    centres: Float[Tensor, "n 2"],
    colour: tuple[float, float, float],
    *,
    radius: float,
) -> Float[Tensor, "3 H W"]:
    """A copy of the image with dots of `radius` px with dark rims; dots outside the image draw nothing."""
    drawn = image.clone()
    _blend(drawn, _discs(centres, 1.5 * radius, drawn), (0.0, 0.0, 0.0), 0.5)
    _blend(drawn, _discs(centres, radius, drawn), colour, 1.0)
    return drawn


def _blend(
    image: Float[Tensor, "3 H W"],
    cover: Float[Tensor, "H W"],
    colour: tuple[float, float, float],
    opacity: float,
) -> None:
    image += opacity * cover * (image.new_tensor(colour)[:, None, None] - image)


def _blend_mesh(
    image: Float[Tensor, "3 H W"],
    points: Float[Tensor, "V 3"],
    triangles: Int[Tensor, "T 3"],
    spec: OverlaySpec,
    backend: MeshBackend,
) -> None:
    """Blend the mesh into the image, with supersampling of the part that the mesh covers."""
    size = image.new_tensor([image.shape[2], image.shape[1]])
    start = points[:, :2].amin(0).floor().clamp_min(0).minimum(size)
    stop = (points[:, :2].amax(0).ceil() + 1).clamp_min(0).minimum(size)
    (left, top), (right, bottom) = start.int().tolist(), stop.int().tolist()
    width, height = right - left, bottom - top
    if min(width, height) < 1:
        return
    finer = spec.supersample if width * height <= _SUPERSAMPLED_PX else 1
    # The centre of the first fine pixel lies (finer - 1) / 2 fine pixels before that of the first coarse one.
    moved = torch.cat([(points[:, :2] - start) * finer + (finer - 1) / 2, points[:, 2:] * finer], -1)
    raster = backend.rasterise(moved, triangles, height * finer, width * finer)
    covered = raster.triangle >= 0
    shade = _shades(points, triangles, spec)[triangles[raster.triangle[covered]]]
    layers = image.new_zeros(2, *covered.shape)
    layers[0][covered] = 1
    layers[1][covered] = (shade * raster.barycentric[covered]).sum(-1)
    cover, shaded = avg_pool2d(layers, finer)
    window = image[:, top:bottom, left:right]
    colour = image.new_tensor(spec.colour)[:, None, None]
    window += spec.opacity * (shaded * colour - cover * window)


def _shades(points: Float[Tensor, "V 3"], triangles: Int[Tensor, "T 3"], spec: OverlaySpec) -> Float[Tensor, "V"]:
    """The shade of each vertex: ambient light and Lambert's cosine."""
    upright = points * points.new_tensor([1.0, -1.0, 1.0])  # the viewer's axes: +y up
    lamp = normalize(points.new_tensor(spec.light), dim=0)
    cosine = (vertex_normals(upright, triangles) @ lamp).clamp_min(0)
    return spec.ambient + (1 - spec.ambient) * cosine


def _discs(centres: Float[Tensor, "n 2"], radius: float, image: Float[Tensor, "3 H W"]) -> Float[Tensor, "H W"]:
    """The share of every pixel that the discs cover, to first order in the distance from the rim."""
    height, width = image.shape[1:]
    reach = int(radius) + 2
    line = torch.arange(-reach, reach + 1, device=image.device)
    offsets = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).reshape(-1, 2)
    pixels = centres.round().long()[:, None] + offsets
    distance = torch.linalg.vector_norm(pixels.to(centres) - centres[:, None], dim=-1)
    inside: Bool[Tensor, "n cells"] = (pixels >= 0).all(-1) & (pixels[..., 0] < width) & (pixels[..., 1] < height)
    cover = (radius + 0.5 - distance).clamp(0, 1)[inside]
    index = (pixels[..., 1] * width + pixels[..., 0])[inside]
    return image.new_zeros(height * width).scatter_reduce(0, index, cover, "amax").reshape(height, width)
