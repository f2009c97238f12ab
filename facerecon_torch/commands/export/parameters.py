"""`facerecon export-parameters`: a prepared set, or the results of `facerecon infer`, in the released form."""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facerecon_torch.checks import require_finite
from facerecon_torch.commands.infer.files.names import result_names
from facerecon_torch.commands.own_files import ABOUT_FORMAT, require_own_folder
from facerecon_torch.data.prepared import PreparedSet, is_complete, load_prepared
from facerecon_torch.errors import DataFileError, FaceReconError, ModelFileError
from facerecon_torch.export.meshes import save_ply
from facerecon_torch.export.released import (
    ReleasedSample,
    save_landmarks_data,
    save_released_table,
    save_weights_mat,
)
from facerecon_torch.files import write_json
from facerecon_torch.formats.face_document import PARAMETERS, face_suffix, part_files
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.default_face import load_default_face
from facerecon_torch.model.io import load_model
from facerecon_torch.structures import FaceParameters, Mesh

__all__ = ["export_parameters", "run_export"]

_RESULT_COLUMNS = frozenset({"input", "path", "face", "score", "plausible", "alpha", "beta", "camera", "landmarks_2d"})
_ABOUT_FILE = "about.json"
_ABOUT = {
    "format": ABOUT_FORMAT,
    "version": 1,
    "files": {
        "NAME.mat": "MATLAB 5: wID [1, I], wEP [1, E], R [3, 3], T",
        "NAME.data": "66 landmarks, 132 little-endian float32: x0 y0 x1 y1 ...; the paper's order: iBUG 17..67 without "
        "60 and 64, then 0..16; no file where landmarks are missing",
        "NAME.ply": "the mesh in the model frame, mm",
        "samples.parquet": "all values, a row per sample",
    },
    "model frame": "mm, +x image right, +y up, +z towards the viewer",
    "image frame": "px, (0, 0) is the centre of the first pixel, +y down",
}
_POSE = {
    "prepared": "scan = R v + T, T [3, 1] in mm; landmarks in px of the crop named in the table",
    "results": "p = s F (R v)_xy + T with F = diag(1, -1), T [2, 1] in px, s in px/mm; landmarks in px of the image",
}


def run_export(arguments: Sequence[str]) -> int:
    """The exit code: 0, or 2 for a wrong argument or file."""
    parser = argparse.ArgumentParser(
        prog="facerecon export-parameters",
        description="Write per sample NAME.mat (wID, wEP, R, T) and NAME.data (66 landmarks, float32), and "
        "samples.parquet with all values.",
    )
    parser.add_argument("source", type=Path, help="a prepared set, or a folder of `facerecon infer`")
    parser.add_argument("out", type=Path, help="folder; created if it is missing")
    parser.add_argument(
        "--meshes", action="store_true", help="also NAME.ply: M of a prepared set, else the fitted face"
    )
    parser.add_argument(
        "--model", default="default", help="for --meshes: the native model file, or `default` (default: %(default)s)"
    )
    given = parser.parse_args(arguments)
    try:
        model = _load(given.model) if given.meshes else None
        count = export_parameters(given.source, given.out, model=model)
    except (FaceReconError, ValueError, OSError) as error:
        sys.stderr.write(f"facerecon export-parameters: {error}\n")
        return 2
    sys.stdout.write(f"{count} samples in {given.out}\n")
    return 0


def _load(name: str) -> FaceModel:
    return load_default_face() if name == "default" else load_model(name)


def export_parameters(source: Path, out: Path, *, model: FaceModel | None = None) -> int:
    """Write the samples of `source` into `out`.

    Args:
        source: A prepared set, or a folder of `facerecon infer`.
        out: The folder to write to.
        model: The face model of the samples; with it their meshes are written too.

    Returns:
        The number of samples.

    Raises:
        DataFileError: `source` is neither a prepared set nor a folder of results.
        ModelFileError: The set was made with another model.
        ValueError: `out` is `source`.
        FileExistsError: `out` holds files, and is no earlier export.
    """
    if source.resolve() == out.resolve():
        raise ValueError(f"out must be another folder than the source; got {out}")
    require_own_folder(out, _ABOUT_FILE)
    meshes: Tensor | None
    if is_complete(source) or not part_files(source / PARAMETERS):
        prepared = load_prepared(source)
        samples, kind, meshes = _of_prepared(prepared), "prepared", prepared.meshes
        _require_model(model, prepared.model_sha256)
    else:
        samples, kind = _of_results(source / PARAMETERS), "results"
        meshes = _fitted(samples, model) if model is not None else None
    write_json(out / _ABOUT_FILE, {**_ABOUT, "pose": _POSE[kind]})
    for row, sample in enumerate(samples):
        save_weights_mat(sample, out / f"{sample.name}.mat")
        if sample.landmarks is not None:
            save_landmarks_data(sample.landmarks, out / f"{sample.name}.data")
        if model is not None and meshes is not None and model.topology is not None:
            save_ply(Mesh(vertices=meshes[row], triangles=model.topology.triangles), out / f"{sample.name}.ply")
    save_released_table(samples, out / "samples.parquet")
    return len(samples)


def _of_prepared(prepared: PreparedSet) -> list[ReleasedSample]:
    samples = []
    for k, name in enumerate(prepared.names):
        labels = {"subject": prepared.subjects[k], "class": prepared.kinds[k], "code": prepared.codes[k]}
        measures = {key: float(values[k]) for key, values in prepared.measures.items()}
        samples.append(
            ReleasedSample(
                name=name,
                image=str(prepared.images[k].relative_to(prepared.folder)),
                parameters=prepared.parameters[k],
                rotation=prepared.rotation[k],
                translation=prepared.translation[k],
                scale=None,
                landmarks=_complete(prepared.landmarks[k]),
                columns={**labels, **measures, "flags": list(prepared.flags[k])},
            )
        )
    return samples


def _require_model(model: FaceModel | None, wanted: str) -> None:
    if model is not None and model.sha256 != wanted:
        raise ModelFileError(f"--model: expected the model that the set was made with, {wanted}; got {model.sha256}")


def _of_results(folder: Path) -> list[ReleasedSample]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    expected = f"{folder}: expected the tables of `facerecon infer`"
    try:
        rows = [row for part in part_files(folder) for row in pq.read_table(part).to_pylist()]
        missing = sorted(_RESULT_COLUMNS - set(rows[0] if rows else ()))
        if missing:
            raise DataFileError(f"{expected} with at least one face; {', '.join(missing)} are missing")
        stems = result_names({row["input"]: Path(row["path"]) for row in rows})
        return [_released(row, stems[row["input"]] + face_suffix(row["face"])) for row in rows]
    except DataFileError:
        raise
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError, RuntimeError, MemoryError) as error:
        raise DataFileError(f"{expected}; {error}") from error


def _released(row: Mapping[str, Any], name: str) -> ReleasedSample:
    """The face in a row of the table. Raises what a row of other types causes, ValueError for a value not finite."""
    camera = row["camera"]
    values = {key: torch.tensor(row[key], dtype=torch.float32) for key in ("alpha", "beta")}
    values |= {key: torch.tensor(camera[key], dtype=torch.float32) for key in ("rotation", "translation", "scale")}
    for key, value in values.items():
        require_finite(key, value)
    measures = {key: row[key] for key in ("plausible", "residual_mm", "shape_distance")}
    return ReleasedSample(
        name=name,
        image=row["path"],
        parameters=FaceParameters(identity=values["alpha"], expression=values["beta"]),
        rotation=values["rotation"].reshape(3, 3),
        translation=values["translation"],
        scale=float(camera["scale"]),
        landmarks=_complete(torch.from_numpy(np.array(row["landmarks_2d"], dtype=np.float32))),  # null becomes NaN
        columns={"face": int(row["face"]), "score": float(row["score"]), **measures},
    )


def _complete(landmarks: Tensor) -> Tensor | None:
    """The landmarks; None where one is missing (NaN), since the released form has no mark for that."""
    return None if bool(torch.isnan(landmarks).any()) else landmarks


def _fitted(samples: list[ReleasedSample], model: FaceModel) -> Tensor:
    """The meshes of the fitted weights. Raises ModelFileError for a model with other numbers of weights."""
    first = samples[0].parameters
    if (len(first.identity), len(first.expression)) != (model.n_identity, model.n_expression):
        raise ModelFileError(
            f"--model: expected {len(first.identity)} x {len(first.expression)} weights; "
            f"got {model.n_identity} x {model.n_expression}"
        )
    step = math.ceil(2**24 / (model.n_vertices * 3))
    parameters = FaceParameters.stack([sample.parameters for sample in samples])
    chunks = [parameters[k : k + step] for k in range(0, len(samples), step)]
    return torch.cat([model(chunk.identity, chunk.expression) for chunk in chunks])
