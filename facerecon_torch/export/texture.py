"""The texture of a face, sampled from its photograph into the texture coordinates of the mesh.

A texel is visible where its point of the surface faces the camera, has nothing in front of it and lies in the image.
The rest is taken from the mirrored point of the face where that is visible, and beyond that spread from the
neighbouring texels.
"""

import io
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, interpolate

from facerecon_torch.geometry.mesh_queries import get_backend, visible_vertices
from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.geometry.projection import project, rotate_to_view
from facerecon_torch.images.read import Pixels, in_unit_range
from facerecon_torch.runtime.precision import in_own_precision
from facerecon_torch.structures import Camera, Mesh

__all__ = ["COMPLETIONS", "TextureAtlas", "encode_texture"]

COMPLETIONS = ("symmetry", "none")
_GRAZING, _FACING = 0.1, 0.4  # z of the unit normal: from no trust in a texel to full trust
_COARSER = 1.5  # px of the image per texel from which on the image is made smaller first, against aliasing
_MARGIN = 3  # px around the face that are sampled
_SLIGHT = 1e-3  # weight below which a texel is filled from its neighbours


@dataclass(frozen=True)
class _Texels:
    """The texels that lie in a triangle of the texture: place in the flat atlas, corners, and corner weights."""

    place: Int[Tensor, "n"]
    corners: Int[Tensor, "n 3"]
    weights: Float[Tensor, "n 3"]

    def interpolate(self, values: Float[Tensor, "vertices k"]) -> Float[Tensor, "n k"]:
        """The values of vertices at the texels."""
        flat = values.index_select(0, self.corners.reshape(-1)).reshape(len(self.place), 3, -1)
        return (flat * self.weights[..., None]).sum(1)


class TextureAtlas:
    """Samples photographs into one square texture; the tables are made once for all faces of a model.

    Args:
        mesh: a symmetric face of the model, such as the mean face: its texture coordinates, and which points are
            mirrored into each other (x -> -x).
        size: side of the texture, px.

    Raises:
        ValueError: the mesh has no texture coordinates, or size is below 8.

    Example:
        atlas = TextureAtlas(mean_mesh)
        texture = atlas.sample(pixels, face.vertices, face.camera)
    """

    def __init__(self, mesh: Mesh, *, size: int = 512) -> None:
        if mesh.uv is None:
            raise ValueError("a texture needs a face model with texture coordinates; this one has none")
        if size < 8:
            raise ValueError(f"the size of a texture must be at least 8 px; got {size}")
        self.size, self._mesh = size, mesh.to("cpu", torch.float32)

    @cached_property
    def _texels(self) -> _Texels:
        mesh, size = self._mesh, self.size
        uv = mesh.uv[mesh.triangles] if mesh.corner_uv is None else mesh.corner_uv  # type: ignore[index]
        flat = uv.reshape(-1, 2).double()
        points = torch.stack([flat[:, 0] * size, (1 - flat[:, 1]) * size, torch.zeros(len(flat))], -1) - 0.5
        corners = torch.arange(len(flat)).reshape(-1, 3)
        raster = get_backend().rasterise(points, corners, size, size)
        place = (raster.triangle.reshape(-1) >= 0).nonzero()[:, 0]
        triangle = raster.triangle.reshape(-1)[place]
        return _Texels(place, mesh.triangles[triangle], raster.barycentric.reshape(-1, 3)[place].float())

    @cached_property
    def _mirror(self) -> _Texels:
        """For every vertex the corners and weights of the point mirrored to it."""
        mesh = self._mesh
        mirrored = mesh.vertices * mesh.vertices.new_tensor([-1.0, 1.0, 1.0])
        nearest = get_backend().closest_point(mirrored, mesh.vertices, mesh.triangles)
        return _Texels(torch.arange(len(mirrored)), mesh.triangles[nearest.triangle], nearest.barycentric)

    @torch.no_grad()
    @in_own_precision
    def sample(
        self,
        pixels: Pixels,
        vertices: Float[Tensor, "vertices 3"],
        camera: Camera,
        *,
        completion: str = "symmetry",
    ) -> UInt8[Tensor, "channels size size"]:
        """The texture of one face: RGB, or with completion `none` RGBA whose alpha is 0 where nothing was seen.

        Args:
            pixels: the photograph, [3, H, W], of uint8 or of floats in [0, 1].
            vertices: of the fitted face in mm, model frame.
            camera: of the face in the photograph.
            completion: `symmetry` fills hidden texels, `none` leaves them out.

        Raises:
            ValueError: another completion.
        """
        if completion not in COMPLETIONS:
            raise ValueError(f"texture.completion must be {' or '.join(COMPLETIONS)}; got {completion!r}")
        vertices, camera = vertices.float().cpu(), camera.to("cpu", torch.float32)
        texels = self._texels
        trust = _trust(vertices, self._mesh.triangles, camera)[:, None]
        seen = torch.cat([project(vertices, camera), trust], -1)
        colours, weights = self._looked_up(pixels, texels.interpolate(seen))
        if completion == "none":
            layers = torch.zeros(4, self.size**2)
            layers[:3, texels.place], layers[3, texels.place] = colours, (weights > 0.5).float()
            return _as_bytes(layers).reshape(4, self.size, self.size)
        hidden = (weights < 1).nonzero()[:, 0]
        behind = _Texels(texels.place[hidden], texels.corners[hidden], texels.weights[hidden])
        others, other_weights = self._looked_up(pixels, behind.interpolate(self._mirror.interpolate(seen)))
        other_weights *= 1 - weights[hidden]
        colours *= weights
        colours[:, hidden] += others * other_weights
        weights[hidden] += other_weights
        layers = torch.zeros(4, self.size**2)
        layers[:3, texels.place], layers[3, texels.place] = colours, weights
        return _as_bytes(_spread(layers.reshape(1, 4, self.size, self.size))[0])

    def _looked_up(
        self, pixels: Pixels, points: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, "3 n"], Float[Tensor, "n"]]:
        """Colours of the photograph at points (x, y, trust), and the trust, which is 0 outside the photograph."""
        height, width = pixels.shape[-2:]
        limits = points.new_tensor([width - 1, height - 1])
        places = points[:, :2]
        trust = torch.where(((places >= 0) & (places <= limits)).all(-1), points[:, 2], 0.0)
        used = places[trust > 0]
        if not len(used):
            return torch.zeros(3, len(points)), torch.zeros(len(points))
        start = (used.amin(0).floor() - _MARGIN).clamp_min(0)
        stop = torch.minimum(used.amax(0).ceil() + _MARGIN, limits) + 1
        (left, top), (right, bottom) = start.int().tolist(), stop.int().tolist()
        window = in_unit_range(pixels[:, top:bottom, left:right].cpu())[None].float()
        coarser = float((stop - start).max()) / self.size / _COARSER
        if coarser > 1:
            smaller = [max(1, round(side / coarser)) for side in window.shape[-2:]]
            window = interpolate(window, smaller, mode="bilinear", antialias=True)
        grid = 2 * (places - start + 0.5) / (stop - start) - 1
        colours = grid_sample(window, grid[None, None], padding_mode="border", align_corners=False)
        return colours[0, :, 0], trust


def _trust(vertices: Tensor, triangles: Tensor, camera: Camera) -> Float[Tensor, "vertices"]:
    """How well the camera sees every vertex, from 0 (hidden or seen at a grazing angle) to 1."""
    points = rotate_to_view(vertices, camera)
    visible: Bool[Tensor, "vertices"] = visible_vertices(points, triangles)
    facing = (vertex_normals(points, triangles)[:, 2] - _GRAZING) / (_FACING - _GRAZING)
    return torch.where(visible, facing.clamp(0, 1), 0.0)


def _spread(layers: Float[Tensor, "1 4 size size"]) -> Float[Tensor, "1 3 size size"]:
    """The colours divided by their weight, the fourth channel; where it is small, those of a coarser image."""
    if layers.shape[-1] > 1:
        padded = interpolate(layers, size=[2 * ((n + 1) // 2) for n in layers.shape[-2:]]) if _odd(layers) else layers
        below = interpolate(_spread(avg_pool2d(padded, 2)), size=layers.shape[-2:], mode="bilinear")
    else:
        below = torch.full_like(layers[:, :3], 0.5)
    weight = layers[:, 3:].clamp(0, 1)
    own = layers[:, :3] / layers[:, 3:].clamp_min(_SLIGHT)
    return torch.lerp(below, own, (weight / 0.25).clamp(0, 1))


def _odd(layers: Tensor) -> bool:
    return any(n % 2 for n in layers.shape[-2:])


def _as_bytes(image: Tensor) -> UInt8[Tensor, "*shape"]:
    return (image.clamp(0, 1) * 255).add_(0.5).to(torch.uint8)


def encode_texture(texture: UInt8[Tensor, "channels height width"]) -> bytes:
    """The texture as a PNG file of zlib's level 1, which takes a quarter of the time of level 6.

    Example:
        Path("face_texture.png").write_bytes(encode_texture(texture))
    """
    about, stream = PngInfo(), io.BytesIO()
    about.add_text("Software", "facerecon_torch")
    values = np.ascontiguousarray(texture.permute(1, 2, 0).cpu().numpy())
    Image.fromarray(values).save(stream, "PNG", pnginfo=about, compress_level=1)
    return stream.getvalue()
