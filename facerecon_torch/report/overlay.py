"""Images with the fitted mesh and the landmarks drawn on them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.geometry.mesh_queries import MeshBackend, get_backend
from facerecon_torch.geometry.normals import corner_crosses, normals_of_crosses
from facerecon_torch.images.read import require_unit_range
from facerecon_torch.runtime.precision import in_own_precision

__all__ = ["OverlaySpec", "draw_dots", "draw_overlay", "paint_overlay"]

_SAMPLES = 200_000  # of a mesh at most, so that large faces have fewer of them per pixel, and are drawn as fast
_STRIP_PX = 2_000_000  # drawn at a time


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
    supersample: int = 3  # samples of a pixel

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
    """The image with the side of the mesh that faces the viewer on it, shaded and half transparent, [3, H, W].

    Args:
        image: [3, H, W] or grey [1, H, W], of uint8 or of floats in [0, 1].
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
    drawn = image.expand(3, -1, -1).clone(memory_format=torch.contiguous_format)
    if drawn.is_floating_point():
        require_unit_range(image, "the image")
        # Not below float32: half precision would move the points of large images.
        drawn = drawn.to(torch.promote_types(image.dtype, torch.float32))
    paint_overlay(drawn, points_image, triangles, landmarks, fitted_landmarks, spec=spec, backend=backend)
    return drawn.to(image.dtype)


def paint_overlay(
    image: Tensor,
    points_image: Tensor,
    triangles: Tensor,
    landmarks: Tensor | None = None,
    fitted_landmarks: Tensor | None = None,
    *,
    spec: OverlaySpec | None = None,
    backend: MeshBackend | None = None,
) -> None:
    """Draw as `draw_overlay` into an image [3, H, W] itself, of which only the face is read and written.

    Its memory is contiguous as [3, H, W] or as [H, W, 3].

    Raises:
        ValueError: another shape, or a value that is not finite.

    Example:
        paint_overlay(pixels, project_with_depth(mesh.vertices, camera), mesh.triangles)
    """
    require_shape("points_image", points_image, (None, 3))
    require_shape("triangles", triangles, (None, 3))
    require_finite("points_image", points_image)
    spec = OverlaySpec() if spec is None else spec
    points = points_image.to(image.device, image.dtype if image.is_floating_point() else torch.float32)
    unit = 1.0 if image.is_floating_point() else 255.0
    _blend_mesh(image, points, triangles.to(image.device), spec, backend or get_backend(), unit)
    sides = points[:, :2].amax(0) - points[:, :2].amin(0)
    radius = max(0.8, spec.dot * float(sides.max()))
    for name, dots, colour, size in (
        ("landmarks", landmarks, spec.landmark_colour, radius),
        ("fitted_landmarks", fitted_landmarks, spec.fitted_colour, 0.7 * radius),
    ):
        if dots is not None:
            require_shape(name, dots, (None, 2))
            require_finite(name, dots)
            _blend_dots(image, dots.to(points), colour, size, unit)


def draw_dots(
    image: Float[Tensor, "3 H W"],
    centres: Float[Tensor, "n 2"],
    colour: tuple[float, float, float],
    *,
    radius: float,
) -> Float[Tensor, "3 H W"]:
    """A copy of the image with dots of `radius` px with dark rims; dots outside the image draw nothing."""
    drawn = image.clone(memory_format=torch.contiguous_format)
    _blend_dots(drawn, centres, colour, radius, unit=1.0)
    return drawn


def _blend_dots(
    image: Tensor, centres: Float[Tensor, "n 2"], colour: tuple[float, float, float], radius: float, unit: float
) -> None:
    """Draw dots with dark rims into an image whose white is `unit`; the share of a pixel that they cover is
    right to first order in the distance from the rim."""
    index, distance = _near(centres, 1.5 * radius, image)
    pixels = _flat(image)
    values = pixels[:, index].to(distance)
    rim, disc = ((reach + 0.5 - distance).clamp(0, 1) for reach in (1.5 * radius, radius))
    values *= 1 - 0.5 * rim
    values += disc * (unit * values.new_tensor(colour)[:, None] - values)
    pixels[:, index] = _stored(values, image)


def _flat(image: Tensor) -> Tensor:
    """A view [3, H * W] of an image whose planes, or whose channels, lie together."""
    rows = image.permute(1, 2, 0)
    return rows.view(-1, 3).T if rows.is_contiguous() else image.view(3, -1)


def _near(
    centres: Float[Tensor, "n 2"], radius: float, image: Tensor
) -> tuple[Int[Tensor, "cells"], Float[Tensor, "cells"]]:
    """The pixels around the centres, as indices of the flat image with repeats, and how far the nearest centre is."""
    height, width = image.shape[1:]
    reach = int(radius) + 2
    line = torch.arange(-reach, reach + 1, device=image.device)
    columns, rows = (centre[:, None] + line for centre in centres.round().long().unbind(-1))
    x, y = (places.to(centres) - centre[:, None] for places, centre in zip((columns, rows), centres.unbind(-1)))
    distance = (y.square()[:, :, None] + x.square()[:, None]).sqrt_().reshape(-1)
    there = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
    inside = there.reshape(-1).nonzero()[:, 0]
    index = (rows[:, :, None] * width + columns[:, None]).reshape(-1).index_select(0, inside)
    nearest = distance.new_empty(height * width).index_fill_(0, index, torch.inf)  # the rest is never read
    nearest.scatter_reduce_(0, index, distance.index_select(0, inside), "amin")
    return index, nearest.index_select(0, index)


def _blend_mesh(
    image: Tensor,
    points: Float[Tensor, "V 3"],
    triangles: Int[Tensor, "T 3"],
    spec: OverlaySpec,
    backend: MeshBackend,
    unit: float,
) -> None:
    """Blend the mesh into an image whose white is `unit`, strip by strip, with supersampling where it is small."""
    height, width = image.shape[1:]
    size = points.new_tensor([width, height])
    start = points[:, :2].amin(0).floor().clamp_min(0).minimum(size)
    stop = (points[:, :2].amax(0).ceil() + 1).clamp_min(0).minimum(size)
    (left, top), (right, bottom) = start.int().tolist(), stop.int().tolist()
    if min(right - left, bottom - top) < 1:
        return
    finer = max(1, min(spec.supersample, _SAMPLES // ((right - left) * (bottom - top))))
    shades, front = _shades(points, triangles, spec)
    colour = unit * points.new_tensor(spec.colour)[:, None, None]
    rows = max(1, _STRIP_PX // (right - left))
    for row in range(top, bottom, rows):
        strip = image[:, row : min(row + rows, bottom), left:right]
        moved = points - points.new_tensor([left, row, 0])
        layers = backend.shade(moved, front, shades, (strip.shape[1], strip.shape[2]), finer=finer)
        cover, shaded = (spec.opacity * layers).to(points)
        strip.copy_(_stored(torch.addcmul(shaded * colour, 1 - cover, strip.to(points)), image))


def _stored(values: Tensor, image: Tensor) -> Tensor:
    """The values rounded to the image's type."""
    return values if image.is_floating_point() else values.add_(0.5).to(image.dtype)


def _shades(
    points: Float[Tensor, "V 3"], triangles: Int[Tensor, "T 3"], spec: OverlaySpec
) -> tuple[Float[Tensor, "V"], Int[Tensor, "front 3"]]:
    """The shade of each vertex, of ambient light and Lambert's cosine, and the triangles that face the viewer."""
    upright = points * points.new_tensor([1.0, -1.0, 1.0])  # the viewer's axes: +y up
    lamp = normalize(points.new_tensor(spec.light), dim=0)
    crosses = corner_crosses(upright, triangles)
    cosine = (normals_of_crosses(upright, triangles, crosses) @ lamp).clamp_min(0)
    return spec.ambient + (1 - spec.ambient) * cosine, triangles[crosses[:, 2] > 0]
