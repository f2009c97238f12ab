"""The texture of a face, sampled from its photograph into the texture coordinates of the mesh.

A texel is visible where its point of the surface faces the camera, has nothing in front of it and lies in the image.
The rest is taken from the mirrored point of the face where that is visible, and beyond that spread from the
neighbouring texels. Of an eye of which something is seen nothing is mirrored, since the gaze is not symmetric. What is
seen of the mouth, teeth as a rule, is spread in the photograph itself over the rest of it: of a mouth without teeth the
deep end is seen, so that a small turn of the head shows other parts.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, interpolate

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.export.photograph_view import EYE, MOUTH, SKIN, PhotographView
from facerecon_torch.export.spread_colours import ENOUGH, SLIGHT, spread_colours
from facerecon_torch.export.uv_layout import corner_uv_of, largest_island, middle_islands, packed_uv, uv_islands
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.images.read import in_bytes, require_unit_range
from facerecon_torch.runtime.precision import in_own_precision
from facerecon_torch.structures import Camera, Mesh

__all__ = ["COMPLETIONS", "COORDINATES", "TextureAtlas", "encode_texture"]

COMPLETIONS = ("symmetry", "none")
COORDINATES = ("packed", "model")
_FAINT = 0.06  # weight of the mouth, and of the mean colour of an eye where it is hidden, beside 1 of what is seen
_CLOSED = 0.35  # brightness of a mouth of which nothing is seen, of the face's


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
    def _part(self) -> UInt8[Tensor, "triangles"]:
        """Of which part each triangle is: the largest island is skin, others on both sides of the face are mouth."""
        island = uv_islands(self._mesh)
        part = torch.full((len(island),), EYE, dtype=torch.uint8)
        for k in middle_islands(self._mesh, island):
            part[island == k] = MOUTH
        part[island == largest_island(island)] = SKIN
        return part

    @cached_property
    def _raster(self) -> tuple[Int[Tensor, "n"], _Texels, UInt8[Tensor, "n"], list[Int[Tensor, "_"]]]:
        """The places in the flat texture that show the surface, their points and parts, and the rows of each island of
        an eye."""
        mesh, size = self._mesh, self.size
        flat = corner_uv_of(mesh).reshape(-1, 2).double()
        points = torch.stack([flat[:, 0] * size, (1 - flat[:, 1]) * size, torch.zeros(len(flat))], -1) - 0.5
        corners = torch.arange(len(flat)).reshape(-1, 3)
        raster = get_backend().rasterise(points, corners, size, size)
        place = (raster.triangle.reshape(-1) >= 0).nonzero()[:, 0]
        triangle = raster.triangle.reshape(-1)[place]
        weights = raster.barycentric.reshape(-1, 3)[place].float().T.contiguous()
        island, part = uv_islands(mesh)[triangle], self._part[triangle]
        eyes = [(island == k).nonzero()[:, 0] for k in set(island[part == EYE].tolist())]
        return place, _Texels(mesh.triangles[triangle].T.contiguous(), weights), part, eyes

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
        pixels: Tensor,
        vertices: Tensor,
        camera: Camera,
        *,
        completion: str = "symmetry",
    ) -> UInt8[Tensor, "channels size size"]:
        """The texture of one face: RGB, or with completion `none` RGBA whose alpha is 0 where nothing was seen.

        Args:
            pixels: the photograph, [3, H, W], of uint8 or of floats in [0, 1].
            vertices: [V, 3], of the fitted face in mm, model frame.
            camera: of the face in the photograph.
            completion: `symmetry` fills hidden texels, `none` leaves them out.

        Raises:
            TypeError, ValueError: another completion, no photograph, several faces, a face of another model, or a value
                that is not finite.
        """
        if completion not in COMPLETIONS:
            raise ValueError(f"texture.completion must be {' or '.join(COMPLETIONS)}; got {completion!r}")
        self._require_face(pixels, vertices, camera)
        vertices, camera = vertices.float().cpu(), camera.to("cpu", torch.float32)
        place, texels, part, eyes = self._raster
        view = PhotographView.of(pixels, vertices, self._mesh.triangles, self._part, camera, self.size)
        points = texels.interpolate(view.points)
        colours, weights = view.look(points, part)
        layers = torch.zeros(4, self.size**2)
        if completion == "none":
            layers[:3, place], layers[3, place] = colours, (weights > 0.5).float()
            return in_bytes(layers.reshape(4, self.size, self.size))
        colours *= weights
        hidden = ((weights < 1) & (part != MOUTH)).nonzero()[:, 0]
        behind = texels.take(hidden).interpolate(self._mirror.interpolate(view.points))
        others, gains = view.look(behind, part[hidden])
        gains = torch.zeros_like(weights).index_copy_(0, hidden, gains * (1 - weights[hidden]))
        _keep_gaze(gains, weights, eyes)
        colours.index_add_(1, hidden, others * gains[hidden])
        weights += gains
        _shade_eyes(colours, weights, eyes)
        mouth = (part == MOUTH).nonzero()[:, 0]
        inside = view.mouth(points[:2, mouth])
        if inside is None:
            inside = _CLOSED * colours.sum(1, keepdim=True) / weights.sum().clamp_min(SLIGHT)
        colours[:, mouth], weights[mouth] = _FAINT * inside, _FAINT  # little of it for the skin beside it
        layers[:3, place], layers[3, place] = colours, weights
        filled = self._filled(layers.reshape(1, 4, self.size, self.size), place, weights)
        filled.view(3, -1)[:, place[mouth]] = inside
        return in_bytes(filled)

    def _require_face(self, pixels: Tensor, vertices: Tensor, camera: Camera) -> None:
        """Raise ValueError or TypeError for a photograph or face of another shape, or values out of range."""
        require_shape("pixels", pixels, (3, None, None))
        if pixels.ndim != 3 or not pixels.numel() or not (pixels.dtype == torch.uint8 or pixels.is_floating_point()):
            raise ValueError(
                f"pixels must be a photograph [3, H, W] of uint8 or floats; got {pixels.dtype} {tuple(pixels.shape)}"
            )
        require_unit_range(pixels, "the photograph")
        count = len(self._mesh.vertices)
        for name, value, shape in (
            ("vertices", vertices, (count, 3)),
            ("camera.rotation", camera.rotation, (3, 3)),
            ("camera.scale", camera.scale, ()),
            ("camera.translation", camera.translation, (2,)),
        ):
            require_shape(name, value, shape)
            if value.ndim != len(shape):
                raise ValueError(f"{name} must be that of one face, {list(shape)}; got {list(value.shape)}")
            require_finite(name, value)
        if not float(camera.scale) > 0:
            raise ValueError(f"camera.scale must be positive, in px/mm; got {float(camera.scale):g}")

    def _filled(
        self, layers: Float[Tensor, "1 4 size size"], place: Int[Tensor, "n"], weights: Float[Tensor, "n"]
    ) -> Float[Tensor, "3 size size"]:
        """The colours of premultiplied layers; those of coarser images where the weight is small and, in blocks, on
        places that show no surface."""
        size = self.size
        coarse = spread_colours(avg_pool2d(layers, 2, ceil_mode=True, count_include_pad=False))
        filled = interpolate(coarse, size=(size, size), mode="nearest")[0].reshape(3, -1)
        unsure = (weights < ENOUGH).nonzero()[:, 0]
        spot = place[unsure]
        grid = (2 * torch.stack([spot % size, spot // size], -1) + 1) / size - 1
        below = grid_sample(coarse, grid[None, None], padding_mode="border", align_corners=False)[0, :, 0]
        flat = layers.reshape(4, -1)
        own = flat[:3] / flat[3].clamp_min(SLIGHT)
        filled[:, place] = own[:, place]
        filled[:, spot] = torch.lerp(below, own[:, spot], weights[unsure] / ENOUGH)
        return filled.reshape(3, size, size)


def _keep_gaze(gains: Float[Tensor, "n"], weights: Float[Tensor, "n"], eyes: Sequence[Int[Tensor, "_"]]) -> None:
    """Set to 0 what mirrored points would give to an eye of which more is seen itself."""
    for rows in eyes:
        if weights[rows].sum() > gains[rows].sum():
            gains[rows] = 0.0


def _shade_eyes(colours: Float[Tensor, "3 n"], weights: Float[Tensor, "n"], eyes: Sequence[Int[Tensor, "_"]]) -> None:
    """Give unseen points of an eye faintly the mean colour of those seen, whose own colours weigh more nearby."""
    for rows in eyes:
        amount, own = weights[rows], colours[:, rows]
        mean = own.sum(1, keepdim=True) / amount.sum().clamp_min(SLIGHT)
        missing = (1 - amount) * _FAINT
        colours[:, rows] = own + mean * missing
        weights[rows] = amount + missing


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
