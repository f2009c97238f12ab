"""Writing a whole set in a real layout, in parallel, resumable, and reading its truth back.

Beside the layout's own files the folder holds truth.safetensors and, written last, truth.json.
"""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

from safetensors.torch import load_file, save

from facerecon_torch.files import write_bytes, write_json
from facerecon_torch.runtime.sharded_job import Shard, ShardedJob, join_columns
from facerecon_torch.synthetic.layouts.spec import LayoutSpec, LayoutTruth, find_layout
from facerecon_torch.synthetic.render.subject import warm_up

__all__ = ["load_truth", "write_set"]

_FORMAT = "facerecon_torch.layout/1"
_HEADER = "truth.json"
_ROWS = ("subjects", "vertices", "rotation", "translation", "landmarks", "expression_weights")


def write_set(spec: LayoutSpec, out: Path, *, workers: int | None = None, progress: bool = True) -> LayoutTruth:
    """The truth of the set of `spec` in `out`; what is missing of the set is written first.

    The bytes depend on `spec` alone, not on the number of processes `workers` (one per core by default). Raises
    ValueError where `out` holds another set, OSError where the disk has too little space.
    """
    out = Path(out)
    layout = find_layout(spec.layout)
    names = {unit: layout.names(spec, unit) for unit in layout.units(spec)}
    samples = sum(len(of_unit) for of_unit in names.values())
    job = ShardedJob(
        folder=out,
        header=_HEADER,
        description={"spec": asdict(spec), "hash": spec.hash},
        shards={unit: len(of_unit) for unit, of_unit in names.items()},
    )
    job.run(
        partial(_write, spec, out),
        partial(_complete, spec, out, [name for of_unit in names.values() for name in of_unit]),
        workers=workers,
        warm_up=warm_up,
        bytes_needed=lambda missing: layout.bytes_needed(spec) * missing // samples,
        progress=f"writing {spec.layout}" if progress else None,
        unit="sample",
    )
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


def _write(spec: LayoutSpec, out: Path, unit: str) -> Shard:
    return Shard(find_layout(spec.layout).write(spec, unit, out))


def _complete(spec: LayoutSpec, out: Path, names: list[str], shards: list[Shard]) -> None:
    rows = join_columns(shards)
    wrong = {key: len(value) for key, value in rows.items() if len(value) != len(names)}
    if wrong or not set(_ROWS) <= set(rows):
        raise ValueError(
            f"a layout must give {len(names)} rows of each of {', '.join(_ROWS)}; got {wrong or set(rows)}"
        )
    write_bytes(out / "truth.safetensors", save(rows))
    header = {
        "format": _FORMAT,
        "hash": spec.hash,
        "spec": asdict(spec),
        "expression_names": list(warm_up().expression_names),
        "names": names,
    }
    write_json(out / _HEADER, header)
