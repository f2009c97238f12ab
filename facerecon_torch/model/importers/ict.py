"""ICT-FaceKit (MIT, ICT Vision and Graphics Lab): FaceXModel/ with one OBJ per mode, in cm.

    generic_neutral_mesh.obj | identity000.obj .. identity099.obj | one OBJ per expression, named by it

Every file has the 26719 vertices of the neutral mesh; mode = file - neutral. A region is the first part of the
vertices: the face, the narrow face, or the whole head with eyes and teeth.
"""

import os
from pathlib import Path

from facerecon_torch.formats.polygon_mesh import read_polygon_mesh
from facerecon_torch.model.importers.imported import ImportedModel, as_model_errors, refused
from facerecon_torch.model.importers.linear_parts import assemble
from facerecon_torch.model.importers.template_mesh import UNITS_MM, mesh_modes

__all__ = ["REGIONS", "read_ict"]

NEUTRAL_FILE = "generic_neutral_mesh.obj"
REGIONS: dict[str, int | None] = {"face": 9409, "narrow": 6706, "whole": None}
TOPOLOGY = "ict_26719"  # also of the regions, whose vertices keep their numbers


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
