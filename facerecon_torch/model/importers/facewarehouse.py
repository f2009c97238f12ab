"""A bilinear model from FaceWarehouse's folders: Tester_*/Blendshape/shape.bs, in dm, with the model's axes."""

import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from facerecon_torch.formats.facewarehouse import (
    MM_PER_DM,
    N_TESTERS,
    BlendshapeHeader,
    blendshape_file,
    find_testers,
    iter_blendshapes,
    read_blendshape_header,
    read_blendshapes,
)
from facerecon_torch.formats.polygon_mesh import PolygonMesh, read_polygon_mesh
from facerecon_torch.model.importers.bilinear_parts import assemble_bilinear, expression_names
from facerecon_torch.model.importers.building import BuildSpec, People, build_bilinear
from facerecon_torch.model.importers.imported import ImportedModel, as_model_errors, refused

__all__ = ["read_facewarehouse"]


def read_facewarehouse(
    path: str | os.PathLike[str],
    *,
    leave_out: Sequence[str] = (),
    spec: BuildSpec | None = None,
    face_vertices: Tensor | None = None,
) -> ImportedModel:
    """The bilinear model of the people below `path`.

    Triangles and uv come from the first shape_0.obj. The summary lists people without shape.bs as missing.

    Args:
        path: The folder with Tester_1 .. 150, or with FaceWarehouse_Data_*.
        leave_out: Folders of people that are left out, such as `Tester_7` of a test set.
        spec: Ranks, temporary folder and device.
        face_vertices: Vertices of the alignment of the people.

    Raises:
        ModelFileError: A file is damaged, people have different counts, or a name in `leave_out` is unknown.
    """
    root = Path(path)
    with as_model_errors():
        files = {folder.name: blendshape_file(folder) for _, folder in find_testers(root)}
        present = {name: file for name, file in files.items() if file.is_file()}
        unknown = sorted(set(leave_out) - set(files))
        if unknown:
            raise refused(root, "leave_out", f"people of this folder ({', '.join(list(files)[:3])}, ...)", unknown)
        used = [file for name, file in present.items() if name not in leave_out]
        if not used:
            raise refused(root, "people", "at least one Tester_*/Blendshape/shape.bs", f"{len(present)}, all left out")
        header = _common_header(used)
        mesh = _faces(root, list(present.values()), header.n_vertices)
        built = build_bilinear(_people(used, header), spec or BuildSpec(), face_vertices)
    expected = dict.fromkeys([*(f"Tester_{k + 1}" for k in range(N_TESTERS)), *files])
    people = {"left_out": sorted(leave_out), "missing": [name for name in expected if name not in present]}
    return assemble_bilinear(
        root,
        built.factors,
        mesh.triangles,
        mesh.uv,
        names=expression_names(header.n_shapes),
        topology_name=f"facewarehouse_{header.n_vertices}",
        mm_per_unit=1.0,
        summary={**built.summary, **people, "mm_per_unit": MM_PER_DM},
    )


def _common_header(files: list[Path]) -> BlendshapeHeader:
    first = read_blendshape_header(files[0])
    for file in files[1:]:
        header = read_blendshape_header(file)
        for field, got, want in (
            ("vertex count", header.n_vertices, first.n_vertices),
            ("shape count", header.n_shapes, first.n_shapes),
        ):
            if got != want:
                raise refused(file, field, f"{want} as in {files[0]}", got)
    return first


def _faces(root: Path, files: list[Path], n_vertices: int) -> PolygonMesh:
    meshes = [file.with_name("shape_0.obj") for file in files]
    mesh_file = next((file for file in meshes if file.is_file()), None)
    if mesh_file is None:
        raise refused(root, "triangles", "a Tester_*/Blendshape/shape_0.obj to take them from", "none")
    mesh = read_polygon_mesh(mesh_file)
    if len(mesh.vertices) != n_vertices:
        raise refused(mesh_file, "vertices", f"{n_vertices} as in shape.bs", len(mesh.vertices))
    return mesh


def _people(files: list[Path], header: BlendshapeHeader) -> People:
    return People(
        n_people=len(files),
        n_expressions=header.n_shapes,
        n_vertices=header.n_vertices,
        read=lambda k: read_blendshapes(files[k]),
        read_neutral=lambda k: next(iter_blendshapes(files[k])),
    )
