"""The meshes of one face as files: frame, expression, texture and morph targets as they were asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from facerecon_torch.cascade.reconstruction import Reconstruction
from facerecon_torch.export.frames import depth_map, in_camera_frame
from facerecon_torch.export.glb import MorphTargets, save_glb
from facerecon_torch.export.meshes import save_obj, save_ply
from facerecon_torch.export.texture import COMPLETIONS, COORDINATES, TextureAtlas, encode_texture
from facerecon_torch.files import replacing, write_bytes
from facerecon_torch.geometry.projection import rotate_to_view
from facerecon_torch.images.read import Pixels
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.named_shapes import NamedShapes, named_shapes, neutral_vertices
from facerecon_torch.structures import Mesh

__all__ = ["FIT", "MESH_FORMATS", "FaceMeshes", "MeshOptions", "TextureOptions", "face_endings"]

MESH_FORMATS = ("obj", "ply", "glb", "texture", "depth")
FIT = "fit"
"""The morph target that leads from the named expressions to the fitted face; its weight is 1."""
_FRAMES, _EXPRESSIONS = ("model", "camera"), ("posed", "neutral")


@dataclass(frozen=True, kw_only=True)
class MeshOptions:
    """Which mesh is written.

    expression: `posed` is the fitted face, `neutral` the same person without expression. frame: `model` or `camera`
    (`frames.in_camera_frame`). targets: whether GLB files have the named expressions as morph targets.
    """

    expression: str = "posed"
    frame: str = "model"
    targets: bool = True

    def __post_init__(self) -> None:
        for name, choice in (("expression", _EXPRESSIONS), ("frame", _FRAMES)):
            if getattr(self, name) not in choice:
                raise ValueError(f"mesh.{name} must be {' or '.join(choice)}; got {getattr(self, name)!r}")


@dataclass(frozen=True, kw_only=True)
class TextureOptions:
    """The texture from the photograph (`export.texture`)."""

    size: int = 256  # px
    completion: str = "symmetry"
    coordinates: str = "packed"

    def __post_init__(self) -> None:
        for name, choice in (("completion", COMPLETIONS), ("coordinates", COORDINATES)):
            if getattr(self, name) not in choice:
                raise ValueError(f"texture.{name} must be {' or '.join(choice)}; got {getattr(self, name)!r}")
        if not 8 <= self.size <= 8192:
            raise ValueError(f"texture.size must be 8 to 8192 px; got {self.size}")


def face_endings(formats: Sequence[str]) -> list[str]:
    """The endings of the names of one face's files for these formats."""
    endings = [f".{kind}" for kind in ("json", "obj", "ply", "glb") if kind in formats]
    if "texture" in formats:
        endings += ["_texture.png", *([".mtl"] if "obj" in formats else [])]
    return endings + (["_depth.png"] if "depth" in formats else [])


class FaceMeshes:
    """Writes the meshes, textures and depth maps of faces of one model.

    Args:
        model: a whole face model, on any device.
        formats: of MESH_FORMATS; others are left alone.
        options: of the meshes.
        texture: of the textures.

    Raises:
        ValueError: the model is restricted, or has no texture coordinates and a texture is asked for.
    """

    def __init__(self, model: FaceModel, formats: Sequence[str], options: MeshOptions, texture: TextureOptions) -> None:
        topology = model.whole_topology("reconstruction needs a whole model")
        self._model, self._options, self._completion = model, options, texture.completion
        self._formats = frozenset(formats)
        self._surface = topology.to("cpu").surface()
        self._atlas: TextureAtlas | None = None
        if "texture" in self._formats:
            mean = model.vertices(model.identity_mean, model.expression_mean)
            self._atlas = TextureAtlas(self.mesh(mean), size=texture.size, coordinates=texture.coordinates)

    @property
    def needed(self) -> bool:
        """Whether any of the formats is written here."""
        return not self._formats.isdisjoint(MESH_FORMATS)

    def mesh(self, vertices: Tensor) -> Mesh:
        """A mesh of the model's surface, on the CPU."""
        return Mesh(vertices=vertices.cpu(), **self._surface)

    def write(self, face: Reconstruction, pixels: Pixels, folder: Path, stem: str) -> None:
        """Write the files of one face, which is on the CPU.

        Args:
            face: without batch axis.
            pixels: its photograph.
            folder: of the files.
            stem: of their names.
        """
        texture = self._texture(face, pixels)
        if texture is not None and "obj" not in self._formats:
            write_bytes(folder / f"{stem}_texture.png", texture)
        shapes = self._shapes(face)
        mesh = self._dressed(self._vertices(face, shapes), face)
        if "obj" in self._formats:
            save_obj(mesh, folder / f"{stem}.obj", texture=texture)
        if "ply" in self._formats:
            save_ply(mesh, folder / f"{stem}.ply")
        if "glb" in self._formats:
            base = mesh if shapes is None else self._dressed(shapes.neutral * face.size, face)
            targets = None if shapes is None else self._targets(face, shapes)
            save_glb(base, folder / f"{stem}.glb", texture=texture, targets=targets)
        if "depth" in self._formats:
            _save_depth(face, self._surface["triangles"], pixels, folder / f"{stem}_depth.png")

    def _texture(self, face: Reconstruction, pixels: Pixels) -> bytes | None:
        if self._atlas is None:
            return None
        return encode_texture(self._atlas.sample(pixels, face.vertices, face.camera, completion=self._completion))

    def _shapes(self, face: Reconstruction) -> NamedShapes | None:
        """The named expressions of one face, where a GLB file needs them."""
        if "glb" not in self._formats or not self._options.targets:
            return None
        shapes = named_shapes(self._model, face.parameters)
        return replace(shapes, neutral=shapes.neutral.to(face.size), displacements=shapes.displacements.to(face.size))

    def _vertices(self, face: Reconstruction, shapes: NamedShapes | None) -> Tensor:
        if self._options.expression == "posed":
            return face.vertices
        neutral = neutral_vertices(self._model, face.parameters) if shapes is None else shapes.neutral
        return neutral.to(face.size) * face.size

    def _dressed(self, vertices: Tensor, face: Reconstruction) -> Mesh:
        """The mesh in the frame and with the texture coordinates that are asked for."""
        framed = in_camera_frame(vertices, face.camera) if self._options.frame == "camera" else vertices
        mesh = self.mesh(framed)
        return mesh if self._atlas is None else self._atlas.textured(mesh)

    def _targets(self, face: Reconstruction, shapes: NamedShapes) -> MorphTargets:
        """The named expressions and, last, what the fitted face has beside them."""
        named = face.expression_weights
        weights = torch.stack([named[name] for name in shapes.names]) if shapes.names else face.size.new_zeros(0)
        moved = shapes.displacements * face.size
        rest = face.vertices - shapes.neutral * face.size - torch.einsum("n,nvc->vc", weights, moved)
        moved = torch.cat([moved, rest[None]])
        weights = torch.cat([weights, weights.new_ones(1)])
        if self._options.expression == "neutral":
            weights = torch.zeros_like(weights)
        if self._options.frame == "camera":
            moved = rotate_to_view(moved, face.camera)
        return MorphTargets(names=(*shapes.names, FIT), displacements=moved, weights=weights)


def _save_depth(face: Reconstruction, triangles: Tensor, pixels: Pixels, path: Path) -> None:
    depth: Any = depth_map(face.vertices, triangles, face.camera, (pixels.shape[-2], pixels.shape[-1]))
    about = PngInfo()
    about.add_text("Software", "facerecon_torch")
    with replacing(path) as aside:
        Image.fromarray(depth).save(aside, "PNG", pnginfo=about, compress_level=1)
