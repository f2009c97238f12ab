"""Writer of a set in a real layout, parallel and resumable, and reader of its truth.

The folder holds the layout's own files, truth.safetensors and, written last, truth.json.
"""

from dataclasses import asdict
from functools import partial
from pathlib import Path

from facerecon_torch.errors import DataFileError
from facerecon_torch.files import write_json
from facerecon_torch.formats.checked_columns import load_columns, save_columns
from facerecon_torch.formats.json_file import read_json, require_entries
from facerecon_torch.runtime.sharded_job import Shard, ShardedJob, join_columns
from facerecon_torch.synthetic.layouts.spec import LayoutSpec, LayoutTruth, find_layout
from facerecon_torch.synthetic.render.subject import warm_up

__all__ = ["load_truth", "write_set"]

_FORMAT = "facerecon_torch.layout/2"
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
        ValueError: `output` holds another set, or `workers` is below 1.
        OSError: the disk has too little space.
    """
    output = Path(output)
    layout = find_layout(spec.layout)
    names = {unit: layout.names(spec, unit) for unit in layout.units(spec)}
    samples = sum(len(of_unit) for of_unit in names.values())
    job = ShardedJob(
        folder=output,
        header=_HEADER,
        description={"spec": asdict(spec), "hash": spec.hash},
        shards={unit: len(of_unit) for unit, of_unit in names.items()},
    )
    job.run(
        partial(_write, spec, output),
        partial(_complete, spec, output, [name for of_unit in names.values() for name in of_unit]),
        workers=workers,
        warm_up=warm_up,
        bytes_needed=lambda missing: layout.bytes_needed(spec) * missing // samples,
        progress=f"writing {spec.layout}" if progress else None,
        unit="sample",
    )
    return load_truth(output)


def load_truth(output: Path) -> LayoutTruth:
    """The truth of the complete set in folder `output`.

    Raises FileNotFoundError where there is none, DataFileError for another format or a damaged one.
    """
    path = Path(output) / _HEADER
    if not path.is_file():
        raise FileNotFoundError(f"a synthetic set must hold {_HEADER}; {output} does not (not written to the end)")
    header = read_json(path)
    if header.get("format") != _FORMAT:
        raise DataFileError(f"{path} must have format {_FORMAT}; got {header.get('format')!r}")
    require_entries(header, {"spec": dict, "names": list, "expression_names": list}, path)
    try:
        spec = LayoutSpec(**header["spec"])
    except (TypeError, ValueError) as error:
        raise DataFileError(f"{path}: spec: {error}") from error
    rows, _ = load_columns(Path(output) / "truth.safetensors")
    return LayoutTruth(
        spec=spec,
        names=tuple(header["names"]),
        expression_names=tuple(header["expression_names"]),
        extra={key: value for key, value in rows.items() if key not in _ROWS},
        **{key: rows[key] for key in _ROWS},
    )


def _write(spec: LayoutSpec, output: Path, unit: str) -> Shard:
    return Shard(find_layout(spec.layout).write(spec, unit, output))


def _complete(spec: LayoutSpec, output: Path, names: list[str], shards: list[Shard]) -> None:
    rows = join_columns(shards)
    wrong = {key: len(value) for key, value in rows.items() if len(value) != len(names)}
    if wrong or not set(_ROWS) <= set(rows):
        raise ValueError(
            f"a layout must give {len(names)} rows of each of {', '.join(_ROWS)}; got {wrong or set(rows)}"
        )
    save_columns(output / "truth.safetensors", rows)
    header = {
        "format": _FORMAT,
        "hash": spec.hash,
        "spec": asdict(spec),
        "expression_names": list(warm_up().expression_names),
        "names": names,
    }
    write_json(output / _HEADER, header)
