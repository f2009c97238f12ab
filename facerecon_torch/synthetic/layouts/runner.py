"""Writing a whole set in a real layout, in parallel, resumable, and reading its truth back.

Beside the layout's own files the folder holds truth.safetensors and, written last, truth.json.
"""

import json
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path

from safetensors.torch import load_file, save
from torch import Tensor

from facerecon_torch.files import write_json
from facerecon_torch.runtime.sharded_job import (
    claimed,
    join_parts,
    make_parts,
    missing_units,
    progress_bar,
    write_bytes,
)
from facerecon_torch.synthetic.layouts.spec import LayoutSpec, LayoutTruth, find_layout
from facerecon_torch.synthetic.render.subject import warm_up

__all__ = ["load_truth", "require_space", "write_set"]

_FORMAT = "facerecon_torch.layout/1"
_HEADER = "truth.json"
_ROWS = ("subjects", "vertices", "rotation", "translation", "landmarks", "expression_weights")


def write_set(spec: LayoutSpec, out: Path, *, workers: int | None = None, progress: bool = True) -> LayoutTruth:
    """Write what is missing of the set into `out` and return its truth.

    The bytes depend on `spec` alone, not on `workers` (processes; default: one a core). Raises ValueError where `out`
    holds another set, OSError where the disk has too little space.
    """
    out = Path(out)
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1; got {workers}")
    layout = find_layout(spec.layout)
    units = layout.units(spec)
    with claimed(out, _HEADER, {"spec": asdict(spec), "hash": spec.hash}) as unfinished:
        if unfinished:
            missing = len(missing_units(out, units))
            require_space(out, layout.bytes_needed(spec) * missing // len(units))
            with progress_bar(units, missing, what=f"writing {spec.layout}", unit="unit", show=progress) as bar:
                for _ in make_parts(out, units, partial(_write, spec, out), workers=workers, warm_up=warm_up):
                    bar.update()
            names = [name for unit in units for name in layout.names(spec, unit)]
            _finish(spec, out, names, join_parts(out, units))
    return load_truth(out)


def load_truth(out: Path) -> LayoutTruth:
    """The truth of a complete set; FileNotFoundError where there is none, ValueError for another format."""
    path = Path(out) / _HEADER
    if not path.is_file():
        raise FileNotFoundError(f"a synthetic set must hold {_HEADER}; {out} does not (not written to the end)")
    header = json.loads(path.read_text())
    if header.get("format") != _FORMAT:
        raise ValueError(f"{path} must have format {_FORMAT}; got {header.get('format')!r}")
    rows = load_file(Path(out) / "truth.safetensors")
    return LayoutTruth(
        spec=LayoutSpec(**header["spec"]),
        names=tuple(header["names"]),
        expression_names=tuple(header["expression_names"]),
        extra={key: value for key, value in rows.items() if key not in _ROWS},
        **{key: rows[key] for key in _ROWS},
    )


def require_space(folder: Path, needed: int) -> None:
    """Raise OSError unless the disk of `folder` has `needed` bytes left."""
    there = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise OSError(f"the set needs about {needed / 1e9:.1f} GB more; {free / 1e9:.1f} GB are free at {there}")


def _write(spec: LayoutSpec, out: Path, unit: str) -> dict[str, Tensor]:
    return find_layout(spec.layout).write(spec, unit, out)


def _finish(spec: LayoutSpec, out: Path, names: list[str], rows: dict[str, Tensor]) -> None:
    wrong = {key: len(value) for key, value in rows.items() if len(value) != len(names)}
    if wrong or not set(_ROWS) <= set(rows):
        raise ValueError(
            f"a layout must give {len(names)} rows of each of {', '.join(_ROWS)}; got {wrong or set(rows)}"
        )
    write_bytes(out / "truth.safetensors", save(rows))
    header: dict[str, object] = {
        "format": _FORMAT,
        "hash": spec.hash,
        "spec": asdict(spec),
        "expression_names": list(warm_up().expression_names),
        "names": names,
    }
    write_json(out / _HEADER, header)
