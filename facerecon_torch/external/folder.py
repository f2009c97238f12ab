"""A folder of another system's results, matched with images by name.

An image NAME owns the files NAME.obj, NAME_0.mat (3DDFA), NAME_obj.obj (3DDFA_V2), NAME/NAME.obj (DECA),
NAME00/mesh_coarse.obj (EMOCA), NAME/mesh.ply and NAME/kpt7.npy (MICA), and the like. Files of other suffixes are not
looked at. What is missing, belongs to no image or cannot be read is listed; the rest is used.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.errors import DataFileError
from facerecon_torch.external.mesh_file import (
    SUFFIXES,
    OutputMesh,
    OutputPoints,
    read_output,
    read_triangles,
    read_vertex_numbers,
)
from facerecon_torch.external.topologies import find_topology, seven_of
from facerecon_torch.files import path_text
from facerecon_torch.metrics.scan import SEVEN_POINTS

__all__ = ["OWN_TOPOLOGY", "OutputFace", "OutputHints", "SystemOutputs", "read_system", "system_folders"]

OWN_TOPOLOGY = "model"
"""The name of the topology of the truth's own face model."""

_MESHES = ("", "_0", "_obj", "_ply", "mesh_coarse", "mesh", "_detail")
"""Ends of names of meshes, the preferred first."""
_POINTS = ("_landmarks", "_kpt7", "_kpt68", "kpt7", "kpt68", "landmarks")
_CROPPED = ("_kpt2d", "_kpt3d", "mesh_coarse_detail")  # DECA's landmarks are in px of its own crop
_IMAGE_POINTS = ("", "_0", "_landmarks", "landmarks")


@dataclass(frozen=True)
class OutputFace:
    """One face of another system.

    `seven` are its points at `scan.SEVEN_POINTS`, in the frame of the mesh; `image_points` the 68 iBUG landmarks in px.
    Of a system that gives landmarks alone, vertices and triangles are None.
    """

    vertices: Float[Tensor, "V 3"] | None
    triangles: Int[Tensor, "T 3"] | None
    seven: Float[Tensor, "7 3"] | None
    image_points: Float[Tensor, "68 2"] | None
    topology: str = ""


@dataclass(frozen=True, kw_only=True)
class SystemOutputs:
    """The faces of a system by the image's place in the list, and the files that gave none.

    Attributes:
        name: of the system, its folder's.
        faces: place -> face.
        missing: images without a file.
        extra: files that belong to no image.
        unreadable: file and reason.
    """

    name: str
    faces: dict[int, OutputFace]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]

    def report(self) -> dict[str, object]:
        """Counts and lists for a JSON document."""
        return {
            "faces": len(self.faces),
            "topologies": sorted({face.topology for face in self.faces.values() if face.topology}),
            "missing": list(self.missing),
            "extra": list(self.extra),
            "unreadable": [{"file": file, "reason": reason} for file, reason in self.unreadable],
        }


@dataclass(frozen=True, kw_only=True)
class OutputHints:
    """Facts that the files of a folder do not hold.

    Attributes:
        triangles: file with the triangles of meshes that come without (3DDFA's tri.mat).
        landmark_vertices: file with the vertex numbers of 7 or 68 landmarks, for meshes of unknown topology.
        own: number of vertices of the truth's own topology, and its vertices at `scan.SEVEN_POINTS`.
    """

    triangles: Path | None = None
    landmark_vertices: Path | None = None
    own: tuple[int, tuple[int, ...]] | None = None

    def seven_vertices(self, n_vertices: int) -> tuple[str, tuple[int, ...] | None]:
        """The name of the topology of so many vertices, empty if unknown, and its vertices at the seven points."""
        if self.own is not None and n_vertices == self.own[0]:
            return OWN_TOPOLOGY, self.own[1]
        name, rows = find_topology(n_vertices) or ("", None)
        if self.landmark_vertices is not None:
            rows = seven_of(read_vertex_numbers(self.landmark_vertices))
        return name, rows


_NO_HINTS = OutputHints()


def system_folders(external: str | Path | Sequence[str | Path] | None) -> tuple[Path, ...]:
    """The folders of other systems' results, from one path or several.

    Raises:
        ValueError: two have the same name, by which tables tell the systems apart.
    """
    listed = () if external is None else (external,) if isinstance(external, str | Path) else external
    folders = tuple(map(Path, listed))
    names = [folder.name for folder in folders]
    if len(set(names)) != len(names):
        raise ValueError(f"folders in external must have different names, which the tables use; got {names}")
    return folders


def read_system(folder: Path, names: Sequence[str], hints: OutputHints = _NO_HINTS) -> SystemOutputs:
    """The results of a system for images of the given names.

    Args:
        folder: of the results.
        names: of the images, without suffix.
        hints: what the files do not say themselves.

    Raises:
        ValueError: the folder is none, or no file in it belongs to an image.

    Example:
        >>> system = read_system(Path("deca"), ["anna", "ben"])
        >>> len(system.faces), system.missing
    """
    if not folder.is_dir():
        raise ValueError(f"external must be a folder of meshes or landmarks; {folder} is none")
    places = {name: k for k, name in enumerate(names)}
    owned: dict[str, list[tuple[str, Path]]] = {}
    extra = []
    for file in _files(folder):
        owner = _owner(file, places)
        if owner is None:
            extra.append(path_text(file.relative_to(folder)))
        elif owner[1] not in _CROPPED:
            owned.setdefault(owner[0], []).append((owner[1], file))
    if not owned:
        raise ValueError(
            f"no file in {folder} belongs to one of the {len(names)} images ({', '.join(names[:3])}, ...); "
            f"{len(extra)} files of other names"
        )
    faces: dict[int, OutputFace] = {}
    unreadable = []
    for name, files in owned.items():
        try:
            faces[places[name]] = _face(files, hints)
        except DataFileError as error:
            unreadable.append((path_text(files[0][1].relative_to(folder)), str(error)))
    missing = tuple(name for name in names if name not in owned)
    return SystemOutputs(
        name=folder.name, faces=faces, missing=missing, extra=tuple(extra), unreadable=tuple(unreadable)
    )


def _files(folder: Path) -> Iterator[Path]:
    """Files of the folder and of its subfolders whose suffixes are known, by name."""
    for path in sorted(folder.iterdir()):
        inner = sorted(path.iterdir()) if path.is_dir() else [path]
        yield from (file for file in inner if file.is_file() and file.suffix.lower() in SUFFIXES)


def _owner(file: Path, places: dict[str, int]) -> tuple[str, str] | None:
    """The image that a file belongs to, and the end of its name; None for a file of no image."""
    if file.stem in places:
        return file.stem, ""
    for end in (*_MESHES[1:], *_POINTS, *_CROPPED):
        name = file.stem.removesuffix(end)
        if name != file.stem and name in places:
            return name, end
    parent = file.parent.name
    parent = parent if parent in places else re.sub(r"\d\d$", "", parent)  # EMOCA numbers the faces of an image
    if parent in places:
        return parent, file.stem
    return None


def _face(files: list[tuple[str, Path]], hints: OutputHints) -> OutputFace:
    """The face in the files of one image. Raises DataFileError."""
    meshes = [(_MESHES.index(end), file) for end, file in files if end in _MESHES and file.suffix.lower() != ".txt"]
    meshes.sort(key=lambda pair: (pair[0], SUFFIXES.index(pair[1].suffix.lower())))
    points = [(end, file) for end, file in files if end in _POINTS or file.suffix.lower() == ".txt"]
    file, output = _first_readable([file for _, file in meshes])
    if isinstance(output, OutputPoints) and file is not None:
        points.append(("", file))
    image_points, seven = _landmarks(points)
    if file is None or not isinstance(output, OutputMesh):
        if image_points is None:
            raise DataFileError(f"{files[0][1]}: expected a mesh, or 68 landmarks in px; got neither")
        return OutputFace(None, None, None, image_points)
    vertices, corners = output.vertices, output.triangles
    if corners is None and hints.triangles is not None:
        corners = read_triangles(hints.triangles, len(vertices))
    if corners is None:
        raise DataFileError(f"{file}: expected triangles; got vertices alone. Give triangles=FILE, as 3DDFA's tri.mat")
    topology, seven = _seven(file, vertices, seven, hints)
    return OutputFace(vertices, corners, seven, image_points, topology)


def _first_readable(files: Sequence[Path]) -> tuple[Path | None, OutputMesh | OutputPoints | None]:
    """The first file that can be read, and its content; None without files. Raises DataFileError, that of the first
    file, where none can."""
    errors: list[DataFileError] = []
    for file in files:
        try:
            return file, read_output(file)
        except DataFileError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return None, None


def _landmarks(files: list[tuple[str, Path]]) -> tuple[Tensor | None, Tensor | None]:
    """The 68 landmarks in px and the seven points on the mesh, where the files have them."""
    image_points, seven = None, None
    for end, file in files:
        output = read_output(file)
        if not isinstance(output, OutputPoints):
            continue
        points = output.points
        if len(points) == 68 and end in _IMAGE_POINTS:
            image_points = points[:, :2]
        if points.shape[1] == 3:
            seven = points if len(points) == 7 else points[list(SEVEN_POINTS)]
    return image_points, seven


def _seven(
    file: Path, vertices: Float[Tensor, "V 3"], seven: Tensor | None, hints: OutputHints
) -> tuple[str, Float[Tensor, "7 3"]]:
    """The name of the topology, empty if unknown, and the seven points. Raises DataFileError where nothing tells.

    The mesh's own vertices come first: landmarks beside it may be in another frame, as those of 3DDFA are, whose OBJ
    files have x and y exchanged."""
    name, rows = hints.seven_vertices(len(vertices))
    if rows is None and seven is not None:
        return name, seven
    if rows is None:
        raise DataFileError(
            f"{file}: expected a mesh of known topology, or landmarks beside it (NAME_kpt7.npy, NAME_landmarks.txt, or "
            f"landmark_vertices=FILE); got {len(vertices)} vertices, a number that no known topology has"
        )
    if max(rows) >= len(vertices):
        raise DataFileError(f"{file}: expected more than {max(rows)} vertices for its landmarks; got {len(vertices)}")
    return name, vertices[torch.tensor(rows)]
