"""True surfaces of a list of images: scans with seven landmarks, and meshes of a face model where these are known."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.data.face_set import FaceSet
from facerecon_torch.errors import DataFileError
from facerecon_torch.external.mesh_file import SUFFIXES, OutputMesh, OutputPoints, read_output
from facerecon_torch.geometry.normals import triangle_normals
from facerecon_torch.images.read import IMAGE_SUFFIXES
from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER
from facerecon_torch.metrics.scan import SEVEN_POINTS
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.topology import FaceTopology

__all__ = [
    "SEVEN_ROWS", "ModelTruth", "Scan", "Truth", "evenly_spread", "photographs_in", "read_scans", "scan_of_mesh",
    "some_of", "truth_of_set",
]  # fmt: skip

SEVEN_ROWS = tuple(IBUG_OF_PAPER.index(point) for point in SEVEN_POINTS)
"""The seven points among the 66 of the paper."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One true surface in mm.

    Attributes:
        points: that distances are measured from.
        normals: theirs; zero where unknown.
        landmarks: at `scan.SEVEN_POINTS`.
        covered: which points were measured, not extrapolated by a registration.
        vertices: of the surface.
        triangles: of the surface; empty for a scan of points alone.
    """

    points: Float[Tensor, "n 3"]
    normals: Float[Tensor, "n 3"]
    landmarks: Float[Tensor, "7 3"]
    covered: Bool[Tensor, "n"]
    vertices: Float[Tensor, "S 3"]
    triangles: Int[Tensor, "T 3"]


@dataclass(frozen=True, kw_only=True)
class ModelTruth:
    """True meshes of a face model in the model frame, mm; `rows` are the measured vertices, `covered` those of each
    image that its scan holds (None: all)."""

    meshes: Float[Tensor, "images V 3"]
    rows: Int[Tensor, "rows"]
    covered: Bool[Tensor, "images V"] | None


@dataclass(frozen=True, kw_only=True)
class Truth:
    """A list of images with their true surfaces.

    Attributes:
        name: of the set.
        names: of the images, without suffix; files of other systems are found by them.
        images: their files; None where there is no photograph.
        subjects: number of the person in each image.
        scans: true surfaces.
        landmarks: 66 points in px that all methods are given; NaN where unknown.
        points68: true 68 points in px, where the set has them.
        yaw_degrees: true, where the set has it.
        model: true meshes of a face model, where the set has them.
    """

    name: str
    names: tuple[str, ...]
    images: tuple[Path | None, ...]
    subjects: Int[Tensor, "images"]
    scans: tuple[Scan, ...]
    landmarks: Float[Tensor, "images 66 2"]
    points68: Float[Tensor, "images 68 2"] | None = None
    yaw_degrees: Float[Tensor, "images"] | None = None
    model: ModelTruth | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def people(self) -> int:
        """The number of persons."""
        return len(set(self.subjects.tolist()))

    def batches(self, places: Sequence[int], size: int) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        """Some images in batches: their places, and their scans' tensors padded to one length, with `valid`."""
        for start in range(0, len(places), size):
            part = list(places[start : start + size])
            scans = [self.scans[k] for k in part]
            longest = max(len(scan.points) for scan in scans)
            yield (
                part,
                {
                    **{
                        name: _padded([getattr(s, name) for s in scans], longest)
                        for name in ("points", "normals", "covered")
                    },
                    "valid": _padded([torch.ones(len(s.points), dtype=torch.bool) for s in scans], longest),
                    "landmarks": torch.stack([scan.landmarks for scan in scans]),
                },
            )


def photographs_in(folder: Path) -> list[Path]:
    """The files of a folder that are named like images, without hidden ones, by name."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))


def _padded(columns: Sequence[Tensor], length: int) -> Tensor:
    return torch.stack([torch.cat([c, c.new_zeros(length - len(c), *c.shape[1:])]) for c in columns])


def scan_of_mesh(
    mesh: Float[Tensor, "V 3"],
    topology: FaceTopology,
    covered: Bool[Tensor, "V"] | None,
    *,
    points: int,
    generator: torch.Generator,
) -> Scan:
    """A scan of a true mesh of a face model: points spread evenly over the area of its vertex set `whole`.

    Args:
        mesh: mm.
        topology: of the model.
        covered: vertices that the data set's scan holds; None: all.
        points: number of points.
        generator: of the points.
    """
    member = torch.zeros(len(mesh), dtype=torch.bool)
    member[topology.whole_vertices] = True
    triangles = topology.triangles[member[topology.triangles].all(-1)]
    return replace(
        _sampled(mesh.double(), triangles, points, generator, covered),
        landmarks=mesh[topology.landmark_vertices[list(SEVEN_ROWS)]].double(),
    )


def _sampled(
    vertices: Tensor, triangles: Tensor, count: int, generator: torch.Generator, covered: Tensor | None
) -> Scan:
    """Random points of a surface, equally dense everywhere; the landmarks are zero."""
    corners = vertices[triangles]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
    chosen = torch.multinomial(area, count, replacement=True, generator=generator)
    u, v = torch.rand(2, count, generator=generator, dtype=torch.float64)
    turned = u + v > 1
    u, v = torch.where(turned, 1 - u, u), torch.where(turned, 1 - v, v)
    weights = torch.stack([1 - u - v, u, v], -1)
    known = torch.ones(count, dtype=torch.bool) if covered is None else covered[triangles[chosen]].all(-1)
    return Scan(
        points=(weights[..., None] * corners[chosen]).sum(1),
        normals=triangle_normals(vertices, triangles)[chosen],
        landmarks=vertices.new_zeros(len(SEVEN_POINTS), 3),
        covered=known,
        vertices=vertices,
        triangles=triangles,
    )


def truth_of_set(faces: FaceSet, model: FaceModel, *, points: int, generator: torch.Generator) -> Truth:
    """The photographs of a data set with their true meshes as scans.

    Args:
        faces: of the set.
        model: of the meshes.
        points: number of points of each scan.
        generator: of the points.

    Raises:
        ValueError: the model is restricted.
    """
    topology = model.whole_topology("a comparison needs a whole model").to("cpu")
    meshes = faces.meshes.float()
    covered = [None] * len(faces) if faces.covered is None else list(faces.covered)
    scans = [
        scan_of_mesh(mesh, topology, known, points=points, generator=generator)
        for mesh, known in zip(meshes, covered, strict=True)
    ]
    return Truth(
        name=faces.name,
        names=tuple(path.stem for path in faces.images),
        images=tuple(faces.images),
        subjects=faces.subjects,
        scans=tuple(scans),
        landmarks=faces.landmarks,
        model=ModelTruth(meshes=meshes, rows=topology.whole_vertices, covered=faces.covered),
    )


def evenly_spread(count: int, most: int | None) -> list[int]:
    """At most `most` of so many places, evenly spread; None: all."""
    return list(range(count)) if most is None or count <= most else [k * count // most for k in range(most)]


def read_scans(folder: Path, *, points: int, generator: torch.Generator) -> Truth:
    """The scans (mm) of a folder: NAME.obj, .ply or .npz, and beside each NAME.txt or NAME.npy with 7 or 68 landmarks.

    Landmarks are 3-D, in the order of `scan.SEVEN_POINTS` or iBUG's. Where there is one, NAME.jpg or .png is the
    photograph. A scan of triangles is measured at `points` random points of its surface, a scan of points alone at all
    of them. Scans whose names are equal up to the first `_` are of one person.

    Args:
        folder: of the scans.
        points: number of points.
        generator: of the points.

    Raises:
        ValueError: the folder is none, or has no scan.
        DataFileError: a file is damaged, or a scan has no landmarks.

    Example:
        >>> len(read_scans(Path("scans"), points=20_000, generator=torch.Generator().manual_seed(0)))
    """
    if not folder.is_dir():
        raise ValueError(f"truth must be a folder of scans; {folder} is none")
    files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in SUFFIXES[:3]]
    if not files:
        raise ValueError(f"truth must be a folder with scans ({', '.join(SUFFIXES[:3])}); {folder} has none")
    photographs = {path.stem: path for path in photographs_in(folder)}
    people = sorted({file.stem.split("_")[0] for file in files})
    return Truth(
        name=folder.name,
        names=tuple(file.stem for file in files),
        images=tuple(photographs.get(file.stem) for file in files),
        subjects=torch.tensor([people.index(file.stem.split("_")[0]) for file in files]),
        scans=tuple(_scan(file, points, generator) for file in files),
        landmarks=torch.full((len(files), 66, 2), torch.nan),
    )


def _scan(file: Path, points: int, generator: torch.Generator) -> Scan:
    output = read_output(file)
    marks = next((path for path in map(file.with_suffix, (".txt", ".npy")) if path.is_file()), None)
    landmarks = None if marks is None else read_output(marks)
    if not isinstance(landmarks, OutputPoints) or landmarks.points.shape[1] != 3 or not isinstance(output, OutputMesh):
        raise DataFileError(f"{file}: expected a scan and beside it NAME.txt or NAME.npy with 7 or 68 points in 3-D")
    seven = landmarks.points if len(landmarks.points) == 7 else landmarks.points[list(SEVEN_POINTS)]
    if output.triangles is not None:
        return replace(_sampled(output.vertices, output.triangles, points, generator, None), landmarks=seven)
    return Scan(
        points=output.vertices,
        normals=torch.zeros_like(output.vertices),
        landmarks=seven,
        covered=torch.ones(len(output.vertices), dtype=torch.bool),
        vertices=output.vertices,
        triangles=torch.zeros(0, 3, dtype=torch.int64),
    )


def some_of(truth: Truth, places: Sequence[int]) -> Truth:
    """Some images of a truth."""
    rows = torch.tensor(list(places), dtype=torch.int64)

    def taken(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[rows]
        if isinstance(value, tuple):
            return tuple(value[k] for k in places)
        if isinstance(value, ModelTruth):
            return replace(value, meshes=value.meshes[rows], covered=taken(value.covered))
        return value

    return replace(truth, **{field.name: taken(getattr(truth, field.name)) for field in fields(truth)})
