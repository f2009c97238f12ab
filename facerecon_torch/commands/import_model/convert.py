"""Completion of an imported model: known landmarks, derived topology, native file, report and review."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.checks import require_file
from facerecon_torch.errors import ModelFileError
from facerecon_torch.files import write_json
from facerecon_torch.images.write import save_png
from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER
from facerecon_torch.model.importers.imported import ImportedModel
from facerecon_torch.model.io import load_model, save_model
from facerecon_torch.model.topology import known_landmarks, landmark_lists
from facerecon_torch.registration.topology.complete import DerivedTopology, TopologySpec, derive_topology
from facerecon_torch.report.topology import TopologyMarks, draw_topology

__all__ = ["ImportSpec", "import_model", "read_known", "summary_lines"]

_HEAD_OF_FRONT = "facescape_26317"  # the mesh with the landmark lists of front parts
_NAMED = 6  # uncertain parts named in an error; the report lists all
_TABLES = ("inner_landmarks", "contour_lines", "centre_vertices", "whole_vertices", "contour_rim")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSpec:
    """Options of `import_model`."""

    allow_uncertain: bool = False  # uncertain tables are written, and named in the report, instead of refused
    storage: str = "float32"
    topology: TopologySpec = field(default_factory=TopologySpec)


_DEFAULT = ImportSpec()


def import_model(
    imported: ImportedModel, out: Path, *, known: Mapping[int, int] | None = None, spec: ImportSpec = _DEFAULT
) -> dict[str, Any]:
    """Write OUT, OUT.report.json and OUT.review.png (OUT without its suffix).

    Args:
        imported: The model of an importer.
        out: The native model file.
        known: iBUG point -> vertex; takes precedence over the landmark lists.
        spec: Options.

    Returns:
        The content of the report.

    Raises:
        ModelFileError: A table is uncertain and `allow_uncertain` is off; report and review are written before.
        ValueError: As `derive_topology` and `save_model` do.
    """
    listed = _listed(imported)
    mean = imported.mean_vertices()
    given = {name: imported.tables[name] for name in _TABLES if name in imported.tables}
    own = known or {}
    derived = derive_topology(
        mean,
        imported.triangles,
        imported.uv,
        {**listed, **own},
        given=given,
        listed=listed.keys() - own.keys(),
        spec=spec.topology,
    )
    report = _report(imported, derived, mean)
    accepted = spec.allow_uncertain or not derived.uncertain
    save_png(_review(mean, derived), out.with_suffix(".review.png"))
    if accepted:
        save_model(imported.make_model(derived.topology), out, storage=spec.storage)
        model = load_model(out)
        report |= {"file": str(out), "sha256": model.sha256, "bytes": out.stat().st_size, "storage": spec.storage}
        report |= {"ranks": [model.n_identity, model.n_expression]}
    write_json(out.with_suffix(".report.json"), _without_infinity(report))
    if not accepted:
        raise ModelFileError(_refusal(derived, out))
    return report


def _listed(imported: ImportedModel) -> dict[int, int]:
    """The landmark vertices of the lists; a front part has a table of its vertices in the whole head."""
    head, name = imported.tables.get("vertices_of_head"), _list_name(imported)
    if head is None:
        return known_landmarks(name, imported.n_vertices)
    place = {vertex: row for row, vertex in enumerate(head.tolist())}
    whole = known_landmarks(name, max((entry.n_vertices for entry in landmark_lists(name)), default=0))
    return {point: place[vertex] for point, vertex in whole.items() if vertex in place}


def _list_name(imported: ImportedModel) -> str:
    """The name of the landmark lists: that of the mesh, or of FaceScape's head for its front."""
    front = "vertices_of_head" in imported.tables and not landmark_lists(imported.topology_name)
    return _HEAD_OF_FRONT if front and imported.topology_name.endswith("_front") else imported.topology_name


def read_known(path: Path, imported: ImportedModel) -> dict[int, int]:
    """The known landmarks of a JSON file, as iBUG point -> vertex.

    Args:
        path: A JSON object: iBUG point -> vertex (from 0), or -> [x, y, z] in mm in the frame of the model's file; a
            position means the nearest vertex of the mean face.
        imported: The model.

    Raises:
        FileNotFoundError: The file is missing.
        ModelFileError: The file has another content.
    """
    require_file("landmarks", path)
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, a number of too many digits, deep nesting
        raise ModelFileError(f"{path}: expected a JSON object, iBUG point -> vertex; {error}") from error
    if not isinstance(table, dict):
        raise ModelFileError(f"{path}: expected a JSON object, iBUG point -> vertex; got {type(table).__name__}")
    origin = torch.tensor(imported.summary.get("origin_mm", [0.0, 0.0, 0.0]), dtype=torch.float64)
    mean = imported.mean_vertices().double() + origin
    return {_point(path, point): _vertex(path, point, value, mean) for point, value in table.items()}


def _point(path: Path, point: str) -> int:
    if not point.isdecimal() or int(point) > 67:
        raise ModelFileError(f"{path}: {point!r}: expected an iBUG point, 0 to 67")
    return int(point)


def _vertex(path: Path, point: str, value: object, mean: Float[Tensor, "v 3"]) -> int:
    if type(value) is int and 0 <= value < len(mean):
        return value
    if isinstance(value, list) and len(value) == 3 and all(type(x) in (int, float) for x in value):
        place = torch.tensor(value, dtype=torch.float64)
        if bool(torch.isfinite(place).all()):
            return int((mean - place).norm(dim=-1).argmin())
    raise ModelFileError(f"{path}: {point}: expected a vertex below {len(mean)} or [x, y, z] in mm; got {value!r}")


def _report(imported: ImportedModel, derived: DerivedTopology, mean: Float[Tensor, "v 3"]) -> dict[str, Any]:
    lists = [
        {"name": entry.name, "source": entry.source, "licence": entry.licence, "verified": entry.verified}
        for entry in landmark_lists(_list_name(imported))
    ]
    kinds = [item.kind for item in derived.items]
    return {
        "kind": imported.kind,
        "mesh": imported.topology_name,
        "vertices": imported.n_vertices,
        "triangles": len(imported.triangles),
        "summary": imported.summary,
        "landmark_lists": lists,
        "landmarks": {
            "known": kinds.count("known landmark"),
            "derived": kinds.count("landmark"),
            "uncertain": sum("landmark" in item.kind for item in derived.uncertain),
        },
        "uncertain": [f"{item.kind} {item.name}: {item.reason}" for item in derived.uncertain],
        "registration": {"scale": derived.scale, "median_distance_mm": derived.residual},
        "replaced_landmarks_mm": {str(point): round(value, 2) for point, value in derived.replaced.items()},
        "disagreement_mm": {str(point): round(value, 2) for point, value in derived.disagreement.items()},
        "items": [asdict(item) for item in derived.items],
        "centre": len(derived.topology.centre_vertices),
        "whole": len(derived.topology.whole_vertices),
        "line_vertices": (derived.topology.contour_lines >= 0).sum(1).tolist(),
    }


def _without_infinity(value: Any) -> Any:
    """The value with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _without_infinity(member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_infinity(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _review(mean: Float[Tensor, "v 3"], derived: DerivedTopology) -> Float[Tensor, "3 h w"]:
    uncertain = derived.uncertain
    marks = TopologyMarks(
        derived=frozenset(item.index for item in derived.items if item.kind == "landmark"),
        uncertain_landmarks=frozenset(item.index for item in uncertain if "landmark" in item.kind),
        uncertain_lines=frozenset(item.index for item in uncertain if "line" in item.kind),
        uncertain_sets=frozenset(item.name for item in uncertain if "set" in item.kind),
    )
    return draw_topology(mean, derived.topology, marks, IBUG_OF_PAPER)


def _refusal(derived: DerivedTopology, out: Path) -> str:
    parts = [f"{item.kind} {item.name}: {item.reason}" for item in derived.uncertain]
    more = f"; and {len(parts) - _NAMED} more" if len(parts) > _NAMED else ""
    return (
        f"{len(parts)} parts of the topology are uncertain: {'; '.join(parts[:_NAMED])}{more}. See "
        f"{out.with_suffix('.review.png')} (red) and {out.with_suffix('.report.json')}; --landmarks gives better ones, "
        "--allow-uncertain takes these"
    )


def summary_lines(report: Mapping[str, Any]) -> list[str]:
    """A summary of the report in a few lines, for the terminal."""
    counts, summary = report["landmarks"], report["summary"]
    lines = [
        f"{report['file']}: {report['kind']}, {report['vertices']} vertices, {report['triangles']} triangles, "
        f"{report['ranks'][0]} x {report['ranks'][1]}",
        *_kept(summary),
        f"landmarks: {counts['known']} known, {counts['derived']} derived, {counts['uncertain']} uncertain; "
        f"centre {report['centre']}, whole {report['whole']} vertices; contour lines of {min(report['line_vertices'])} "
        f"to {max(report['line_vertices'])} vertices",
        f"default face registered at {report['registration']['median_distance_mm']:.2f} mm, "
        f"{report['registration']['scale']:.3f} times its size",
    ]
    lines += [
        f"landmark {point} of the list lay {distance:.1f} mm from its place on the registered face: placed anew"
        for point, distance in report["replaced_landmarks_mm"].items()
    ]
    lines += [f"uncertain: {part}" for part in report["uncertain"]]
    return [*lines, f"sha256 {report['sha256']}, {report['bytes'] / 1e6:.1f} MB ({report['storage']})"]


def _kept(summary: Mapping[str, Any]) -> list[str]:
    """Lines with the variance kept and the RMSE of the rest in mm per vertex; a linear model has one per basis."""
    lines = []
    for name in ("", "identity_", "expression_"):
        kept = summary.get(f"{name}variance_kept")
        if not kept:  # 0 for a model without such a basis
            continue
        lost = summary.get(f"{name}rms_mm", 0.0) * max(1 / kept - 1, 0.0) ** 0.5
        rmse = summary.get(f"{name}rmse_mm", lost)
        lines.append(f"{name.replace('_', ' ')}variance kept {kept:.2%}, RMSE {rmse:.3f} mm")
    return lines
