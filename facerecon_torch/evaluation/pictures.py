"""Pictures of faces: photographs with overlays, meshes, and meshes coloured by their errors."""

import io

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn.functional import interpolate

from facerecon_torch.data.face_set import FaceSet
from facerecon_torch.fitting.landmark_fit import FitSpec, LandmarkFitter
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.geometry.projection import project_with_depth
from facerecon_torch.images.read import in_bytes, in_unit_range, read_pixels
from facerecon_torch.model.base import FaceModel
from facerecon_torch.report.overlay import draw_overlay
from facerecon_torch.structures import Camera, FaceParameters

__all__ = ["FacePictures", "draw_mesh", "png_bytes", "sheet"]

TILE = 220
"""Side of a tile in px."""
_SKIN = (0.82, 0.80, 0.77)
_LIGHT = (-0.3, 0.4, 0.87)
_AMBIENT = 0.45
_MARGIN = 1.25  # side of a tile around a face, in sides of the landmarks' box


def draw_mesh(
    vertices: Float[Tensor, "V 3"],
    triangles: Int[Tensor, "T 3"],
    colours: Float[Tensor, "V 3"] | None = None,
    *,
    tile: int = TILE,
) -> Float[Tensor, "3 tile tile"]:
    """A mesh in mm in the viewer's axes (+y up, +z towards the viewer) on white, in skin colour or in `colours`."""
    low, high = vertices[:, :2].amin(0), vertices[:, :2].amax(0)
    scale = 0.94 * tile / float((high - low).max())
    middle = torch.cat([(low + high) / 2, vertices[:, 2:].mean(0)])
    points = (vertices - middle) * scale * vertices.new_tensor([1.0, -1.0, 1.0])
    points = points + vertices.new_tensor([(tile - 1) / 2, (tile - 1) / 2, 0.0])
    raster = get_backend().rasterise(points, triangles, tile, tile)
    covered = raster.triangle >= 0
    normals = vertex_normals(vertices, triangles)
    shade = _AMBIENT + (1 - _AMBIENT) * (normals @ vertices.new_tensor(_LIGHT)).clamp_min(0)
    base = vertices.new_tensor(_SKIN).expand(len(vertices), 3) if colours is None else colours.to(vertices)
    corners = triangles[raster.triangle[covered]]
    picture = vertices.new_ones(tile, tile, 3)
    picture[covered] = ((base * shade[:, None])[corners] * raster.barycentric[covered][..., None]).sum(1)
    return picture.permute(2, 0, 1).clamp(0, 1)


class FacePictures:
    """Tiles of one photograph each: the face cut out, the estimate drawn on it, and the estimate alone.

    Args:
        model: the face model, on the CPU.
        faces: photographs with landmarks.
    """

    def __init__(self, model: FaceModel, faces: FaceSet) -> None:
        self._model, self._faces = model, faces
        self._topology = model.whole_topology("pictures need a whole model")
        self._fitter = LandmarkFitter(model, FitSpec())

    def camera(self, row: int, estimate: FaceParameters) -> Camera:
        """The camera of one photograph for an estimate of one row."""
        points = self._faces.landmarks[row][None]
        return self._fitter.refine(estimate, points, self._fitter.fit(points).camera)[0]

    def tiles(self, row: int, estimate: FaceParameters) -> list[Float[Tensor, "3 tile tile"]]:
        """Photograph, overlay and mesh of one photograph; `estimate` has one row."""
        camera = self.camera(row, estimate)
        vertices = self._model.vertices(estimate.identity, estimate.expression)
        image = in_unit_range(read_pixels(self._faces.images[row]))
        drawn = draw_overlay(image, project_with_depth(vertices, camera)[0], self._topology.triangles)
        box = _box(self._faces.landmarks[row], image.shape)
        mesh = draw_mesh((vertices[0] @ camera.rotation[0].mT).float(), self._topology.triangles)
        return [_cut(image, box), _cut(drawn, box), mesh]


def _box(landmarks: Float[Tensor, "66 2"], shape: torch.Size) -> tuple[slice, slice]:
    """Rows and columns of a square around the landmarks, inside the image where it can be."""
    known = landmarks[torch.isfinite(landmarks).all(-1)]
    low, high = known.amin(0), known.amax(0)
    side = max(8, int(_MARGIN * float((high - low).max())))
    slices = []
    for centre, extent in zip(((low + high) / 2).tolist(), (shape[2], shape[1]), strict=True):
        start = max(0, min(int(centre - side / 2), extent - side))
        slices.append(slice(start, min(start + side, extent)))
    return slices[1], slices[0]


def _cut(image: Float[Tensor, "3 H W"], box: tuple[slice, slice]) -> Float[Tensor, "3 tile tile"]:
    """The box as a tile; what lies outside the image is white."""
    part = image[:, box[0], box[1]]
    side = max(part.shape[1:])
    square = image.new_ones(3, side, side)
    square[:, : part.shape[1], : part.shape[2]] = part
    return interpolate(square[None], (TILE, TILE), mode="bilinear", antialias=True)[0].clamp(0, 1)


def sheet(rows: list[list[Float[Tensor, "3 tile tile"]]]) -> Float[Tensor, "3 height width"]:
    """Rows of tiles as one picture; shorter rows end in white."""
    longest = max(map(len, rows))
    blank = torch.ones_like(rows[0][0])
    return torch.cat([torch.cat([*row, *[blank] * (longest - len(row))], 2) for row in rows], 1)


def png_bytes(picture: Float[Tensor, "3 H W"]) -> bytes:
    """A picture in [0, 1] as the bytes of a PNG that names this package as its software."""
    values = in_bytes(picture).permute(1, 2, 0).cpu().numpy()
    about, buffer = PngInfo(), io.BytesIO()
    about.add_text("Software", "facerecon_torch")
    Image.fromarray(np.ascontiguousarray(values)).save(buffer, "PNG", pnginfo=about)
    return buffer.getvalue()
