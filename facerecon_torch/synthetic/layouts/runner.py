"""Writer of a set in a real layout, parallel and resumable, and reader of its truth.

The folder holds the layout's own files, truth.safetensors and, written last, truth.json.
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


def write_set(spec: LayoutSpec, output: Path, *, workers: int | None = None, progress: bool = True) -> LayoutTruth:
    """The truth of the set in folder `output`, after the missing units are written.

    Args:
        spec: the set; its bytes depend on this alone.
        output: folder of the set; created if it is missing.
        workers: number of processes; None: one per core.
        progress: whether a progress bar is shown.

    Raises:
        ValueError: `output` holds another set.
        OSError: the disk has too little space.
    """
    output = Path(output)
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1; got {workers}")
    layout = find_layout(spec.layout)
    units = layout.units(spec)
    with claimed(output, _HEADER, {"spec": asdict(spec), "hash": spec.hash}) as unfinished:
        if unfinished:
            missing = len(missing_units(output, units))
            require_space(output, layout.bytes_needed(spec) * missing // len(units))
            with progress_bar(units, missing, what=f"writing {spec.layout}", unit="unit", show=progress) as bar:
                for _ in make_parts(output, units, partial(_write, spec, output), workers=workers, warm_up=warm_up):
                    bar.update()
            names = [name for unit in units for name in layout.names(spec, unit)]
            _finish(spec, output, names, join_parts(output, units))
    return load_truth(output)


def load_truth(output: Path) -> LayoutTruth:
    """The truth of the complete set in folder `output`.

    Raises FileNotFoundError where there is none, ValueError for another format.
    """
    path = Path(output) / _HEADER
    if not path.is_file():
        raise FileNotFoundError(f"a synthetic set must hold {_HEADER}; {output} does not (not written to the end)")
    header = json.loads(path.read_text())
    if header.get("format") != _FORMAT:
        raise ValueError(f"{path} must have format {_FORMAT}; got {header.get('format')!r}")
    rows = load_file(Path(output) / "truth.safetensors")
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


def _write(spec: LayoutSpec, output: Path, unit: str) -> dict[str, Tensor]:
    return find_layout(spec.layout).write(spec, unit, output)


def _finish(spec: LayoutSpec, output: Path, names: list[str], rows: dict[str, Tensor]) -> None:
    wrong = {key: len(value) for key, value in rows.items() if len(value) != len(names)}
    if wrong or not set(_ROWS) <= set(rows):
        raise ValueError(
            f"a layout must give {len(names)} rows of each of {', '.join(_ROWS)}; got {wrong or set(rows)}"
        )
    write_bytes(output / "truth.safetensors", save(rows))
    header: dict[str, object] = {
        "format": _FORMAT,
        "hash": spec.hash,
        "spec": asdict(spec),
        "expression_names": list(warm_up().expression_names),
        "names": names,
    }
    write_json(output / _HEADER, header)
