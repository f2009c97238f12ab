"""Files of the free default face: their contents, reader and writer."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from facerecon_torch.checks import require_file
from facerecon_torch.errors import ModelFileError

__all__ = [
    "ADULT_SIZE",
    "ASSET_FOLDER",
    "FILES",
    "MASKS",
    "PARTS",
    "STEP_MM",
    "SourceAsset",
    "file_digests",
    "read_asset",
    "read_tensors",
    "write_asset",
    "write_tensors",
]

ASSET_FOLDER = Path(__file__).resolve().parents[2] / "assets" / "default_face"
ADULT_SIZE = 1.072
"""Millimetres of the model per millimetre of MakeHuman's files, whose heads are smaller than published ones: the middle
of 1.064 (men) and 1.080 (women). The painter's lengths are MakeHuman's millimetres."""
STEP_MM = 0.025
"""Targets are stored as int16 multiples of this many millimetres."""
PARTS = ("skin", "lips", "mouth", "left_eye", "right_eye", "hair", "lashes", "cloth")
"""Names of the triangle labels; left is the person's left, at +x (image right)."""
MASKS = ("face", "lips", "eyelids", "ears", "inside-mouth")
"""Names of the vertex masks."""
FILES = ("source.safetensors", "source.json", "tables.safetensors", "factors.safetensors")
"""The files that determine the default model."""
FORMAT = "facerecon_torch.default_face/3"


@dataclass(frozen=True, kw_only=True)
class SourceAsset:
    """Base head and its additive targets: model frame axes, mm, MakeHuman's origin.

    The first `n_face` vertices and the first `n_face_triangles` triangles are the model's. Target t moves vertex
    target_vertices[k] by target_steps[k] x 0.025 mm for k in target_offsets[t]:target_offsets[t + 1].
    `anatomy` are the vertices of 68 anatomical marks by iBUG number (the rim of the lips, the middle of the brow);
    `spreads` are the standard deviations of the weights of local sliders and smooth fields.
    """

    n_face: int
    n_face_triangles: int
    base: Float[np.ndarray, "v 3"]
    triangles: Int[np.ndarray, "t 3"]
    triangle_parts: Int[np.ndarray, "t"]
    uv: Float[np.ndarray, "v 2"]
    corner_uv: Float[np.ndarray, "t 3 2"]
    masks: Float[np.ndarray, "masks v"]
    hm08_vertices: Int[np.ndarray, "v"]
    target_names: tuple[str, ...]
    target_offsets: Int[np.ndarray, "targets_and_end"]
    target_vertices: Int[np.ndarray, "entries"]
    target_steps: Int[np.ndarray, "entries 3"]
    anatomy: Int[np.ndarray, "68"]
    spreads: dict[str, float]
    origin: str


def write_asset(asset: SourceAsset, folder: Path) -> None:
    """Write source.safetensors and source.json into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    texture, corner = np.unique(asset.corner_uv.reshape(-1, 2), axis=0, return_inverse=True)
    tensors = {
        "base": asset.base.astype(np.float32),
        "triangles": asset.triangles.astype(np.uint16),
        "triangle_parts": asset.triangle_parts.astype(np.uint8),
        "uv": asset.uv.astype(np.float32),
        "texture": texture.astype(np.float32),
        "corner_texture": corner.reshape(-1, 3).astype(np.uint16),
        "masks": np.rint(asset.masks * 255).astype(np.uint8),
        "hm08_vertices": asset.hm08_vertices.astype(np.uint16),
        "target_offsets": asset.target_offsets.astype(np.int64),
        "target_vertices": asset.target_vertices.astype(np.uint16),
        "target_steps": asset.target_steps.astype(np.int16),
        "anatomy": asset.anatomy.astype(np.uint16),
    }
    write_tensors(folder / "source.safetensors", tensors)
    header = {
        "format": FORMAT,
        "n_face": asset.n_face,
        "n_face_triangles": asset.n_face_triangles,
        "step_mm": STEP_MM,
        "parts": PARTS,
        "masks": MASKS,
        "origin": asset.origin,
        "target_names": asset.target_names,
        "spreads": asset.spreads,
    }
    (folder / "source.json").write_text(json.dumps(header, indent=1) + "\n")


def read_asset(folder: Path = ASSET_FOLDER) -> SourceAsset:
    """The asset in `folder`. Raises ModelFileError where its files are damaged or have another format."""
    tensors = read_tensors(folder / "source.safetensors")
    require_file("the default face's source.json", folder / "source.json")
    try:
        header = json.loads((folder / "source.json").read_text())
    except json.JSONDecodeError as error:
        raise ModelFileError(f"{folder / 'source.json'} must be JSON; {error}") from error
    if header.get("format") != FORMAT:
        got = header.get("format")
        raise ModelFileError(f"{folder / 'source.json'} must have format {FORMAT}; got {got}")
    return SourceAsset(
        n_face=int(header["n_face"]),
        n_face_triangles=int(header["n_face_triangles"]),
        base=tensors["base"],
        triangles=tensors["triangles"].astype(np.int64),
        triangle_parts=tensors["triangle_parts"].astype(np.int64),
        uv=tensors["uv"],
        corner_uv=tensors["texture"][tensors["corner_texture"].astype(np.int64)],
        masks=tensors["masks"].astype(np.float32) / 255,
        hm08_vertices=tensors["hm08_vertices"].astype(np.int64),
        target_names=tuple(header["target_names"]),
        target_offsets=tensors["target_offsets"],
        target_vertices=tensors["target_vertices"].astype(np.int64),
        target_steps=tensors["target_steps"],
        anatomy=tensors["anatomy"].astype(np.int64),
        spreads={str(name): float(value) for name, value in header["spreads"].items()},
        origin=str(header["origin"]),
    )


def write_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write a safetensors file."""
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path)


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file. Raises FileNotFoundError or ModelFileError where it cannot be read."""
    require_file("a file of the default face", path)
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise ModelFileError(f"{path} must be a complete safetensors file; {error}") from error


def file_digests(folder: Path = ASSET_FOLDER) -> bytes:
    """The SHA-256 of each of FILES, one after the other."""
    return b"".join(hashlib.sha256((folder / name).read_bytes()).digest() for name in FILES)
