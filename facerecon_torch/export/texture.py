"""The texture of a face, sampled from its photograph into the texture coordinates of the mesh.

A texel is visible where its point of the surface faces the camera, has nothing in front of it and lies in the image.
The rest is taken from the mirrored point of the face where that is visible, and beyond that spread from the
neighbouring texels.
"""

import io
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, interpolate, max_pool2d

from facerecon_torch.export.uv_layout import corner_uv_of, packed_uv, uv_islands
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.normals import corner_crosses, normals_of_crosses
from facerecon_torch.geometry.projection import project_with_depth, rotate_to_view
from facerecon_torch.images.read import Pixels, in_unit_range
from facerecon_torch.runtime.precision import in_own_precision
from facerecon_torch.structures import Camera, Mesh

__all__ = ["COMPLETIONS", "COORDINATES", "TextureAtlas", "encode_texture"]

COMPLETIONS = ("symmetry", "none")
COORDINATES = ("packed", "model")
_GRAZING, _FACING = 0.2, 0.5  # z of the unit normal: from no trust in a texel to full trust
_COARSER = 1.5  # px of the image per texel from which on the image is made smaller first, against aliasing
_MARGIN = 3  # px around the face that are sampled
_HIDDEN_MM = 2.0  # behind the nearest surface, from which on a point is hidden
_STEEPEST = 8.0  # px of depth per px
_INSIDE = 0.5  # brightness of what is hidden in eyes and mouth, of what is seen there
_ENOUGH, _SLIGHT = 0.25, 1e-3  # weight from which a texel needs no neighbours, and the least that is divided by


@dataclass(frozen=True)
class _Texels:
    """Points of the surface by their triangle: its corners, and their weights. Tables are planar, which is faster."""

    corners: Int[Tensor, "3 n"]
    weights: Float[Tensor, "3 n"]

    def interpolate(self, values: Float[Tensor, "k vertices"]) -> Float[Tensor, "k n"]:
        """The values of vertices at the points."""
        first, second, third = (values.index_select(1, corner) for corner in self.corners)
        return torch.addcmul(first * self.weights[0], second, self.weights[1]).addcmul_(third, self.weights[2])

    def take(self, rows: Int[Tensor, "m"]) -> "_Texels":
        return _Texels(self.corners.index_select(1, rows), self.weights.index_select(1, rows))


class TextureAtlas:
    """Samples photographs into one square texture; the tables are made once for all faces of a model.

    Args:
        mesh: a symmetric face of the model, such as the mean face: its texture coordinates, and which points are
            mirrored into each other (x -> -x).
        size: side of the texture, px.
        coordinates: `packed`, which fill the texture (`uv_layout.packed_uv`), or `model`: those of the mesh.

    Raises:
        ValueError: the mesh has no texture coordinates, size is below 8, or coordinates have another name.

    Example:
        atlas = TextureAtlas(mean_mesh)
        texture = encode_texture(atlas.sample(pixels, face.vertices, face.camera))
        save_glb(atlas.textured(face.mesh), "face.glb", texture=texture)
    """

    def __init__(self, mesh: Mesh, *, size: int = 256, coordinates: str = "packed") -> None:
        corner_uv_of(mesh)
        if size < 8:
            raise ValueError(f"texture.size must be at least 8 px; got {size}")
        if coordinates not in COORDINATES:
            raise ValueError(f"texture.coordinates must be {' or '.join(COORDINATES)}; got {coordinates!r}")
        self.size, self._mesh = size, mesh.to("cpu", torch.float32)
        if coordinates == "packed":
            self._mesh = self.textured(self._mesh, packed_uv(self._mesh))

    def textured(self, mesh: Mesh, corner_uv: Tensor | None = None) -> Mesh:
        """The mesh with the texture coordinates of this atlas, or with those given."""
        corner_uv = self._mesh.corner_uv if corner_uv is None else corner_uv
        if corner_uv is None:
            return mesh
        uv = torch.zeros(len(mesh.vertices), 2).index_put_(
            (mesh.triangles.cpu().reshape(-1),), corner_uv.reshape(-1, 2)
        )
        return replace(mesh, uv=uv.to(mesh.vertices), corner_uv=corner_uv.to(mesh.vertices))

    @cached_property
    def _raster(self) -> tuple[Int[Tensor, "n"], _Texels, Bool[Tensor, "n"]]:
        """The places in the flat texture that show the surface, their points, and which lie on its largest island."""
        mesh, size = self._mesh, self.size
        flat = corner_uv_of(mesh).reshape(-1, 2).double()
        points = torch.stack([flat[:, 0] * size, (1 - flat[:, 1]) * size, torch.zeros(len(flat))], -1) - 0.5
        corners = torch.arange(len(flat)).reshape(-1, 3)
        raster = get_backend().rasterise(points, corners, size, size)
        place = (raster.triangle.reshape(-1) >= 0).nonzero()[:, 0]
        triangle = raster.triangle.reshape(-1)[place]
        weights = raster.barycentric.reshape(-1, 3)[place].float().T.contiguous()
        island = uv_islands(mesh)
        largest = island == island.bincount().argmax()
        return place, _Texels(mesh.triangles[triangle].T.contiguous(), weights), largest[triangle]

    @cached_property
    def _inner(self) -> Int[Tensor, "m"]:
        """The vertices of the smaller islands, which are eyes and mouth."""
        island = uv_islands(self._mesh)
        inner: Tensor = torch.unique(self._mesh.triangles[island != island.bincount().argmax()])
        return inner

    @cached_property
    def _mirror(self) -> _Texels:
        """The mirrored point of every vertex."""
        mesh = self._mesh
        mirrored = mesh.vertices * mesh.vertices.new_tensor([-1.0, 1.0, 1.0])
        nearest = get_backend().closest_point(mirrored, mesh.vertices, mesh.triangles)
        return _Texels(mesh.triangles[nearest.triangle].T.contiguous(), nearest.barycentric.T.contiguous())

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
        place, texels, outside = self._raster
        view = _View.of(pixels, vertices, self._mesh.triangles, camera, self.size)
        view.points[3, self._inner] = 1.0  # eyes and mouth show little of themselves: what is seen counts
        colours, weights = view.look(texels.interpolate(view.points))
        layers = torch.zeros(4, self.size**2)
        if completion == "none":
            layers[:3, place], layers[3, place] = colours, (weights > 0.5).float()
            return _as_bytes(layers).reshape(4, self.size, self.size)
        hidden = (weights < 1).nonzero()[:, 0]
        behind = texels.take(hidden).interpolate(self._mirror.interpolate(view.points))
        others, other_weights = view.look(behind)
        other_weights *= 1 - weights[hidden]
        colours *= weights
        colours.index_add_(1, hidden, others * other_weights)
        weights.index_add_(0, hidden, other_weights)
        _darken_inside(colours, weights, outside)
        layers[:3, place], layers[3, place] = colours, weights
        return _as_bytes(self._filled(layers.reshape(1, 4, self.size, self.size), place, weights))

    def _filled(
        self, layers: Float[Tensor, "1 4 size size"], place: Int[Tensor, "n"], weights: Float[Tensor, "n"]
    ) -> Float[Tensor, "3 size size"]:
        """The colours of premultiplied layers; those of coarser images where the weight is small and, in blocks, on
        places that show no surface."""
        size = self.size
        coarse = _spread(avg_pool2d(layers, 2, ceil_mode=True, count_include_pad=False))
        filled = interpolate(coarse, size=(size, size), mode="nearest")[0].reshape(3, -1)
        unsure = (weights < _ENOUGH).nonzero()[:, 0]
        spot = place[unsure]
        grid = (2 * torch.stack([spot % size, spot // size], -1) + 1) / size - 1
        below = grid_sample(coarse, grid[None, None], padding_mode="border", align_corners=False)[0, :, 0]
        flat = layers.reshape(4, -1)
        own = flat[:3] / flat[3].clamp_min(_SLIGHT)
        filled[:, place] = own[:, place]
        filled[:, spot] = torch.lerp(below, own[:, spot], weights[unsure] / _ENOUGH)
        return filled.reshape(3, size, size)


def _darken_inside(colours: Float[Tensor, "3 n"], weights: Float[Tensor, "n"], outside: Bool[Tensor, "n"]) -> None:
    """Give unseen points of eyes and mouth, the smaller islands, a dark shade of what is seen of these."""
    inside = (~outside).nonzero()[:, 0]
    amount = weights[inside]
    total = float(amount.sum())
    if total > 0:
        missing = (1 - amount) * _ENOUGH
        shade = _INSIDE * colours[:, inside].sum(1, keepdim=True) / total
        colours.index_add_(1, inside, shade * missing)
        weights.index_add_(0, inside, missing)


@dataclass(frozen=True)
class _View:
    """A face in its photograph.

    Attributes:
        points: of the vertices: x and y in px of the window, the depth up to which something nearer hides nothing,
            in px, and how squarely they face the camera, from 0 to 1.
        window: the photograph around the face, no finer than the texture.
        depth: of the nearest surface, in px, on the pixels of the window; infinite at the background.
    """

    points: Float[Tensor, "4 vertices"]
    window: Float[Tensor, "1 3 height width"]
    depth: Float[Tensor, "height width"]

    @classmethod
    def of(cls, pixels: Pixels, vertices: Tensor, triangles: Tensor, camera: Camera, size: int) -> "_View":
        """The view of one face for a texture of `size` px."""
        points = project_with_depth(vertices, camera)
        turned = rotate_to_view(vertices, camera)
        crosses = corner_crosses(turned, triangles)
        normals = normals_of_crosses(turned, triangles, crosses)[:, 2:]
        facing = ((normals - _GRAZING) / (_FACING - _GRAZING)).clamp(0, 1)
        limits = points.new_tensor([pixels.shape[-1], pixels.shape[-2]])
        start = (points[:, :2].amin(0).floor() - _MARGIN).clamp_min(0).minimum(limits - 1)
        stop = (points[:, :2].amax(0).ceil() + _MARGIN).minimum(limits).maximum(start + 1)
        (left, top), (right, bottom) = start.int().tolist(), stop.int().tolist()
        window = in_unit_range(pixels[:, top:bottom, left:right].cpu())[None].float()
        coarser = max(1.0, float((stop - start).max()) / size / _COARSER)
        if coarser > 1:
            smaller = [max(1, round(side / coarser)) for side in window.shape[-2:]]
            window = interpolate(window, smaller, mode="bilinear", antialias=True)
        height, width = window.shape[-2:]
        stretch = points.new_tensor([width, height]) / (stop - start)
        places = (points[:, :2] - start + 0.5) * stretch - 0.5
        points = torch.cat([places, points[:, 2:] / coarser], -1)
        raster = get_backend().rasterise(points, triangles[crosses[:, 2] > 0], height, width)
        free = max_pool2d((raster.triangle < 0).float()[None], 3, stride=1, padding=1)[0] > 0
        depth = torch.where(free, torch.inf, raster.depth)  # pixels beside the background show some of it
        # Towards the nearest pixel centre the depth of a slanted surface changes too.
        slope = ((1 - normals.square()).clamp_min(0).sqrt() / normals.clamp_min(0.1)).clamp_max(_STEEPEST)
        farthest = points[:, 2:] + _HIDDEN_MM * camera.scale / coarser + slope
        return cls(torch.cat([places, farthest, facing], -1).T.contiguous(), window, depth)

    def look(self, points: Float[Tensor, "4 n"]) -> tuple[Float[Tensor, "3 n"], Float[Tensor, "n"]]:
        """Colours at points of the surface, and how well they are seen: 0 where hidden or outside the photograph."""
        height, width = self.window.shape[-2:]
        x, y, farthest, facing = points
        inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
        row, column = (y + 0.5).int().clamp_(0, height - 1), (x + 0.5).int().clamp_(0, width - 1)
        nearest = self.depth.reshape(-1).index_select(0, row * width + column)
        trust = torch.where(inside & (nearest <= farthest), facing, 0.0)
        grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
        colours = grid_sample(self.window, grid[None, None], padding_mode="border", align_corners=False)
        return colours[0, :, 0], trust


def _spread(layers: Float[Tensor, "1 4 size size"]) -> Float[Tensor, "1 3 size size"]:
    """The colours divided by their weight, the fourth channel; where it is small, those of a coarser image."""
    height, width = layers.shape[-2:]
    if max(height, width) > 1:
        coarse = avg_pool2d(layers, 2, ceil_mode=True, count_include_pad=False)
        below = interpolate(_spread(coarse), size=(height, width), mode="bilinear")
    else:
        below = torch.full_like(layers[:, :3], 0.5)
    weight = layers[:, 3:]
    own = layers[:, :3] / weight.clamp_min(_SLIGHT)
    return torch.lerp(below, own, (weight / _ENOUGH).clamp(0, 1))


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
