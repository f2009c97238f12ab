"""The rendered head: the source's bust with teeth and long hair, its tables, and the true landmarks of its face.

Reference frame: the neutral mean head in the model frame, in the painter's millimetres (1 / ADULT_SIZE of the
model's). Every rendered vertex has a fixed reference position at which texture, hairline and occlusion are sampled, so
they follow the surface of any identity and expression. Skin is painted around anatomical marks, not around the points
where a detector puts its landmarks: the appearance must not depend on the detector.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.fitting.contour import ContourLines, ContourSpec, build_contour_lines, march_contour
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.normals import vertex_normals
from facerecon_torch.geometry.projection import project
from facerecon_torch.landmarks.scheme import N_INNER
from facerecon_torch.model.default_face import FaceSource, load_source, load_topology
from facerecon_torch.model.default_face.asset import ADULT_SIZE
from facerecon_torch.structures import Camera
from facerecon_torch.synthetic.people.canvas import Atlas
from facerecon_torch.synthetic.procedural import smooth_step

__all__ = ["PARTS", "Head", "contour_candidates", "load_head", "true_landmarks"]

PARTS = ("skin", "lips", "mouth", "left_eye", "right_eye", "curtain", "lashes", "cloth", "teeth")
_LEFT_OUT = ("hair", "lashes", "cloth")  # helper shells of the source; the renderer has its own
_OCCLUSION_RAYS = 96
_CURTAIN = (44, 20)  # columns around the back of the head, rows from the crown down
_TEETH = 12  # columns of one row of teeth


@dataclass(frozen=True)
class Head:
    """Tables of the rendered head, built once per process."""

    source: FaceSource
    atlas: Atlas
    reference: Float[Tensor, "v 3"]
    triangles: Int[Tensor, "t 3"]
    parts: Int[Tensor, "t"]
    ears: Float[Tensor, "v"]
    occlusion: Float[Tensor, "v"]
    marks: Int[Tensor, "68"]
    eye_centres: Float[Tensor, "2 3"]  # left, right of the person
    n_source: int
    upper_teeth: Int[Tensor, "teeth"]
    lower_teeth: Int[Tensor, "teeth"]
    curtain: Int[Tensor, "curtain"]

    @property
    def unrolled_marks(self) -> Float[Tensor, "68 2"]:
        """The painting landmarks on the atlas, mm."""
        return self.atlas.unroll(self.reference[self.marks])


@lru_cache(maxsize=1)
def load_head() -> Head:
    """The rendered head of the free default face."""
    source = load_source()
    atlas = Atlas()
    names = {name: i for i, name in enumerate(source.part_names)}
    left_out = torch.tensor([names[part] for part in _LEFT_OUT])
    keep = ~torch.isin(source.triangle_parts, left_out)
    triangles, parts = source.triangles[keep], source.triangle_parts[keep]
    marks = source.anatomy
    reference, n = source.mean / ADULT_SIZE, len(source.mean)
    pieces, faces, labels = [reference], [triangles], [parts]
    groups = []
    for label, (points, quads) in (
        ("teeth", _teeth_row(reference[marks], upper=True)),
        ("teeth", _teeth_row(reference[marks], upper=False)),
        ("curtain", _curtain()),
    ):
        start = sum(len(p) for p in pieces)
        groups.append(torch.arange(start, start + len(points)))
        pieces.append(points)
        faces.append(quads + start)
        labels.append(torch.full((len(quads),), PARTS.index(label)))
    vertices = torch.cat(pieces)
    extra = torch.zeros(len(vertices) - n)
    ears = torch.cat([source.masks["ears"], extra])
    rows = tuple(torch.unique(triangles[parts == names[eye]]) for eye in ("left_eye", "right_eye"))
    return Head(
        source=source,
        atlas=atlas,
        reference=vertices,
        triangles=torch.cat(faces),
        parts=torch.cat(labels),
        ears=ears,
        occlusion=torch.cat([_occlusion(source, triangles, parts), 0.7 + extra]),
        marks=marks,
        eye_centres=torch.stack([_centre(reference[r]) for r in rows]),
        n_source=n,
        upper_teeth=groups[0],
        lower_teeth=groups[1],
        curtain=groups[2],
    )


def _centre(points: Tensor) -> Tensor:
    return (points.amin(0) + points.amax(0)) / 2


def _grid_triangles(columns: int, rows: int) -> Int[Tensor, "t 3"]:
    at = torch.arange(columns * rows).reshape(rows, columns)
    a, b, c, d = at[:-1, :-1], at[:-1, 1:], at[1:, 1:], at[1:, :-1]
    return torch.cat([torch.stack([a, d, c], -1), torch.stack([a, c, b], -1)]).reshape(-1, 3)


def _teeth_row(marks: Float[Tensor, "68 3"], *, upper: bool) -> tuple[Tensor, Tensor]:
    """Vertices and triangles of a row of teeth behind the lips."""
    lips = marks[[61, 62, 63, 65, 66, 67]].mean(0)
    turn = torch.linspace(-1.25, 1.25, _TEETH)
    x, z = 21.0 * torch.sin(turn), lips[2] - 8.0 - 26.0 * (1 - torch.cos(turn))
    rows = torch.tensor([7.0, 2.0, -3.2] if upper else [-1.6, -5.5, -9.0])
    lean = torch.tensor([-1.5, 0.0, 0.2] if upper else [-2.0, -2.3, -3.5])
    points = torch.stack(
        [
            x.expand(3, -1),
            (lips[1] + rows)[:, None].expand(-1, _TEETH),
            z + lean[:, None],
        ],
        dim=-1,
    )
    return points.reshape(-1, 3), _grid_triangles(_TEETH, 3)


def _curtain() -> tuple[Tensor, Tensor]:
    """Vertices and triangles of long hair: a cylinder that is open at the front.

    Its reference positions hold (azimuth share, height share, 0); `hair.shape_curtain` makes the vertices of a subject.
    """
    columns, rows = _CURTAIN
    azimuth = torch.linspace(-1, 1, columns).expand(rows, -1)
    down = torch.linspace(0, 1, rows)[:, None].expand(-1, columns)
    points = torch.stack([azimuth, down, torch.zeros_like(down)], dim=-1)
    return points.reshape(-1, 3), _grid_triangles(columns, rows)


def _occlusion(source: FaceSource, triangles: Tensor, parts: Tensor) -> Float[Tensor, "v"]:
    """The cosine-weighted share of the sky visible from each vertex of the mean head, with the mouth a little open."""
    weights = torch.zeros(1, len(source.expression_names))
    weights[0, source.expression_names.index("jawOpen")] = 0.35
    points = source.expression_vertices(source.mean_sliders[None], weights)[0]
    normals = vertex_normals(points, triangles)
    generator = torch.Generator().manual_seed(0)
    rays = torch.nn.functional.normalize(torch.randn(_OCCLUSION_RAYS, 3, generator=generator), dim=1)
    directions = torch.nn.functional.normalize(normals[:, None] + 0.999 * rays, dim=-1)
    starts = (points + 0.5 * normals)[:, None] + 0.3 * directions
    hits = get_backend().first_hit(starts.reshape(-1, 3), directions.reshape(-1, 3), points, triangles)
    reach = hits.distance.reshape(len(points), -1)
    open_sky = smooth_step(reach, 10.0, 90.0).mean(1)
    return torch.where(open_sky > 0, open_sky, torch.zeros_like(open_sky)).clamp(0.02, 1.0)


@lru_cache(maxsize=1)
def contour_candidates() -> tuple[Int[Tensor, "66"], ContourLines]:
    """The landmark vertices of the default face, and the lines along which its contour landmarks move."""
    source, topology = load_source(), load_topology()
    return topology.landmark_vertices, build_contour_lines(source.mean[: source.n_face], topology)


def true_landmarks(
    vertices: Float[Tensor, "v 3"],
    camera: Camera,
    candidates: tuple[Int[Tensor, "66"], ContourLines] | None = None,
) -> tuple[Float[Tensor, "66 2"], Int[Tensor, "17"]]:
    """The landmarks in px of a mesh (mm, model frame) under `camera`, and the vertices of the 17 contour landmarks.
    These lie at the silhouette, where detectors put them. `candidates` are those of the mesh; None: of the default
    face."""
    marks, lines = contour_candidates() if candidates is None else candidates
    slots = march_contour(vertices[lines.vertices], camera.rotation, lines, ContourSpec())
    contour = lines.vertices.gather(1, slots[:, None])[:, 0]
    rows = torch.cat([marks[:N_INNER], contour])
    return project(vertices[rows], camera), contour
