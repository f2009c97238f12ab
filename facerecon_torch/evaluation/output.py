"""The folder of an evaluation: metrics.json, metrics.csv, images.parquet, figures/ and report.html."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from facerecon_torch.evaluation.page import write_page
from facerecon_torch.evaluation.study import Study, measure_columns
from facerecon_torch.evaluation.tables import METRICS_FORMAT, Section
from facerecon_torch.files import replacing, write_bytes, write_json

__all__ = ["write_evaluation", "write_metrics"]

_IMAGES_FORMAT = "facerecon-image-errors"


def write_metrics(
    folder: Path, studies: Mapping[str, Study], about: Mapping[str, Any], generator: torch.Generator
) -> None:
    """Write metrics.json, metrics.csv and images.parquet of some studies; `about` describes the run."""
    document = {name: study.document(generator) for name, study in studies.items()}
    head = {"format": METRICS_FORMAT, "version": 1}
    write_json(folder / "metrics.json", head | {"studies": _without_nan(document)} | dict(about))
    write_bytes(folder / "metrics.csv", _csv(studies).encode("utf-8"))
    _write_images(folder / "images.parquet", studies)


def write_evaluation(folder: Path, title: str, facts: Mapping[str, Any], sections: Sequence[Section]) -> None:
    """Write the figures of some sections, and their page."""
    for section in sections:
        for figure in section.figures:
            write_bytes(folder / "figures" / f"{figure.name}.png", figure.png)
    write_page(folder / "report.html", title, facts, sections)


def _without_nan(value: Any) -> Any:
    """The same plain values with null for a mean over nothing."""
    if isinstance(value, dict):
        return {name: _without_nan(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and value != value else value


def _csv(studies: Mapping[str, Study]) -> str:
    """A line per study, method and class (`all`: all of them): the mean of every error over its images."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    head: list[str] = []
    for name, study in studies.items():
        for method, errors in study.errors.items():
            columns = measure_columns(errors)
            if not head:
                head = list(columns)
                writer.writerow(["study", "protocol", "method", "class", "images", "subjects", *head])
            for kind, rows in _classes(study):
                counts = [int(rows.sum()), len(torch.unique(study.tested.faces.subjects[rows]))]
                means = ["" if c not in columns else f"{float(columns[c][rows].nanmean()):.6g}" for c in head]
                writer.writerow([name, study.protocol, method, kind, *counts, *means])
    return buffer.getvalue()


def _classes(study: Study) -> Iterator[tuple[str, torch.Tensor]]:
    yield "all", torch.ones(len(study.tested), dtype=torch.bool)
    kinds = sorted(set(study.kinds))
    if kinds != ["all"]:
        yield from ((kind, study.rows(kind)) for kind in kinds)


def _write_images(path: Path, studies: Mapping[str, Study]) -> None:
    """A row per study, method and tested image with all its errors."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for name, study in studies.items():
        faces = study.tested.faces
        for method, errors in study.errors.items():
            words: dict[str, Any] = {
                "study": [name] * len(faces),
                "method": [method] * len(faces),
                "image": [file.name for file in faces.images],
                "subject": faces.subjects.tolist(),
                "class": list(faces.kinds or study.kinds),
                "fold": study.tested.folds.tolist(),
            }
            numbers = {column: values.float().numpy() for column, values in measure_columns(errors).items()}
            tables.append(pa.table(words | numbers))
    table = pa.concat_tables(tables, promote_options="default")
    table = table.replace_schema_metadata({"facerecon_format": _IMAGES_FORMAT})
    with replacing(path) as aside:
        pq.write_table(table, aside)
