"""A mesh and its modes: any template mesh (OBJ or PLY), and ICT-FaceKit.

Modes of a template are a folder of deformed copies of the mesh, or an .npz of offsets. Folder: every `.obj` or `.ply`
beside the template is the template plus one mode; files named `identity*` are identity modes of one standard deviation,
all others are expressions at weight 1, named by their files.
Npz: `identity` [I, V, 3] and `expression` [E, V, 3], offsets in the template's unit; optionally `identity_variance`
[I], `expression_variance` [E] and `expression_names` [E].

ICT-FaceKit (MIT, ICT Vision and Graphics Lab) is the folder FaceXModel/ with one OBJ per mode, in cm:

    generic_neutral_mesh.obj | identity000.obj .. identity099.obj | one OBJ per expression, named by it

Every file has the 26719 vertices of the neutral mesh; mode = file - neutral. A region is the first part of the
vertices: the face, the narrow face, or the whole head with eyes and teeth.
"""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facerecon_torch.formats.npz_file import read_npz
from facerecon_torch.formats.polygon_mesh import PolygonMesh, read_polygon_mesh
from facerecon_torch.model.importers.imported import ImportedModel, as_model_errors, refused
from facerecon_torch.model.importers.linear_parts import BLENDSHAPE_VARIANCE, LinearParts, assemble

__all__ = ["UNITS_MM", "mesh_modes", "read_template_mesh", "REGIONS", "read_ict"]

UNITS_MM = {"um": 1e-3, "mm": 1.0, "cm": 10.0, "dm": 100.0, "m": 1000.0}
IDENTITY_PREFIX = "identity"
_SUFFIXES = (".obj", ".ply")
NEUTRAL_FILE = "generic_neutral_mesh.obj"
REGIONS: dict[str, int | None] = {"face": 9409, "narrow": 6706, "whole": None}
TOPOLOGY = "ict_26719"  # also of the regions, whose vertices keep their numbers


def read_template_mesh(
    path: str | os.PathLike[str],
    modes: str | os.PathLike[str],
    *,
    unit: str = "mm",
    n_identity: int | None = None,
    n_expression: int | None = None,
) -> ImportedModel:
    """The linear model of a mesh and its modes; variances are 1 (identity) and 1/3 (expression) by default.

    Args:
        path: The template, with +x to image right, +y up and +z to the viewer.
        modes: The folder or `.npz` file.
        unit: Unit of the template: um, mm, cm, dm or m.
        n_identity: Largest number of identity modes.
        n_expression: Largest number of expressions.

    Raises:
        ModelFileError: A file is damaged, a mesh has another number of vertices, or there are no identity modes.
        ValueError: The unit is unknown.
    """
    if unit not in UNITS_MM:
        raise ValueError(f"unit must be one of {', '.join(UNITS_MM)}; got {unit!r}")
    file, source = Path(path), Path(modes)
    with as_model_errors():
        template = read_polygon_mesh(file)
        if source.is_dir():
            parts = mesh_modes(template, file, [p for p in sorted(source.iterdir()) if p.suffix.lower() in _SUFFIXES])
        else:
            parts = _npz_modes(template, source)
    return assemble(
        file,
        parts,
        unit_mm=UNITS_MM[unit],
        topology_name=f"mesh_{len(template.vertices)}",
        n_identity=n_identity,
        n_expression=n_expression,
    )


def mesh_modes(template: PolygonMesh, file: Path, paths: list[Path], n_rows: int | None = None) -> LinearParts:
    """The parts of a model of the first `n_rows` vertices; a mode is a mesh of `paths` minus the template."""
    shapes: dict[str, NDArray[np.float32]] = {}
    base = template.vertices.numpy()[:n_rows]
    for path in paths:
        if path.resolve() == file.resolve():
            continue
        vertices = read_polygon_mesh(path, faces=False).vertices.numpy()
        if len(vertices) != len(template.vertices):
            raise refused(path, "vertices", f"{len(template.vertices)} as in {file.name}", len(vertices))
        if path.stem in shapes:
            raise refused(path, "name", "one file per mode", f"another file named {path.stem}")
        shapes[path.stem] = (vertices[:n_rows] - base).astype(np.float32)
    people = [offsets for name, offsets in shapes.items() if name.lower().startswith(IDENTITY_PREFIX)]
    names = [name for name in shapes if not name.lower().startswith(IDENTITY_PREFIX)]
    if not people:
        raise refused(file, "modes", f"meshes named {IDENTITY_PREFIX}*.obj or .ply", f"none among {len(shapes)} meshes")
    return _parts(template, people, [shapes[name] for name in names], names, n_rows)


def _parts(
    template: PolygonMesh,
    people: list[NDArray[np.float32]],
    faces: list[NDArray[np.float32]],
    names: list[str],
    n_rows: int | None,
) -> LinearParts:
    none = np.zeros((len(people[0]), 3, 0), dtype=np.float32)
    uv = None if template.uv is None else template.uv.numpy()[:n_rows]
    triangles = template.triangles.numpy()
    whole = (triangles < (len(template.vertices) if n_rows is None else n_rows)).all(axis=1)
    return LinearParts(
        mean=template.vertices.numpy()[:n_rows],
        triangles=triangles[whole],
        identity=np.stack(people, axis=-1),
        expression=np.stack(faces, axis=-1) if faces else none,
        identity_variance=np.ones(len(people)),
        expression_variance=np.full(len(faces), BLENDSHAPE_VARIANCE),
        names=names,
        uv=uv,
        corner_uv=None if template.corner_uv is None else template.corner_uv.numpy()[whole],
        notes={"polygons": template.n_polygons, "uv_seam_vertices": template.n_seams},
    )


def _npz_modes(template: PolygonMesh, source: Path) -> LinearParts:
    n_vertices = len(template.vertices)
    arrays = read_npz(source)
    bases: dict[str, NDArray[np.float32]] = {}
    variances: dict[str, NDArray[np.float64]] = {}
    for name, variance in ((IDENTITY_PREFIX, 1.0), ("expression", BLENDSHAPE_VARIANCE)):
        offsets = arrays.get(name, np.zeros((0, n_vertices, 3), dtype=np.float32))
        if offsets.dtype.kind != "f" or offsets.ndim != 3 or offsets.shape[1:] != (n_vertices, 3):
            raise refused(source, name, f"floats of shape [n, {n_vertices}, 3]", f"{offsets.dtype} {offsets.shape}")
        variances[name] = arrays.get(f"{name}_variance", np.full(len(offsets), variance)).astype(np.float64)
        if variances[name].shape != (len(offsets),):
            raise refused(source, f"{name}_variance", f"shape ({len(offsets)},)", variances[name].shape)
        bases[name] = np.moveaxis(offsets, 0, -1)
    names = [str(name) for name in arrays.get("expression_names", np.zeros(0, dtype="U1")).reshape(-1)]
    if names and len(names) != bases["expression"].shape[-1]:
        raise refused(source, "expression_names", f"{bases['expression'].shape[-1]} names", len(names))
    return LinearParts(
        mean=template.vertices.numpy(),
        triangles=template.triangles.numpy(),
        identity=bases[IDENTITY_PREFIX],
        expression=bases["expression"],
        identity_variance=variances[IDENTITY_PREFIX],
        expression_variance=variances["expression"],
        names=names,
        uv=None if template.uv is None else template.uv.numpy(),
        corner_uv=None if template.corner_uv is None else template.corner_uv.numpy(),
        notes={"polygons": template.n_polygons, "uv_seam_vertices": template.n_seams},
    )


def read_ict(
    path: str | os.PathLike[str],
    *,
    region: str = "face",
    n_identity: int | None = None,
    n_expression: int | None = None,
) -> ImportedModel:
    """The model of one region; alpha in standard deviations (variance 1), beta in [0, 1] (variance 1/3).

    Args:
        path: The folder FaceXModel, or the folder that contains it.
        region: "face", "narrow" or "whole".
        n_identity: Largest number of identity modes.
        n_expression: Largest number of expressions.

    Raises:
        ModelFileError: A file is missing, damaged or of another mesh.
        ValueError: The region is unknown.
    """
    if region not in REGIONS:
        raise ValueError(f"region must be one of {', '.join(REGIONS)}; got {region!r}")
    folder = Path(path)
    folder = folder / "FaceXModel" if (folder / "FaceXModel").is_dir() else folder
    file = folder / NEUTRAL_FILE
    with as_model_errors():
        neutral = read_polygon_mesh(file)
        n_rows = REGIONS[region]
        if n_rows is not None and n_rows > len(neutral.vertices):
            raise refused(file, "vertices", f"at least {n_rows} for the region {region!r}", len(neutral.vertices))
        paths = [p for p in sorted(folder.glob("*.obj")) if p != file]
        parts = mesh_modes(neutral, file, paths, n_rows)
    return assemble(
        file,
        parts,
        unit_mm=UNITS_MM["cm"],
        topology_name=TOPOLOGY,
        n_identity=n_identity,
        n_expression=n_expression,
    )
