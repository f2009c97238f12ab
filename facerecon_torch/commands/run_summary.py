"""Summary of a result folder of `facerecon infer`: counts, throughput, trust, and its gallery."""

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from facerecon_torch.cascade.plausibility import Plausibility, is_unsure
from facerecon_torch.commands.infer.parts import RunCounts, read_quarantine
from facerecon_torch.commands.own_files import PROGRESS_FORMAT, read_document
from facerecon_torch.errors import DataFileError, ImageFileError
from facerecon_torch.export.parameters import MEASURES
from facerecon_torch.formats.face_document import PARAMETERS, face_suffix, part_files
from facerecon_torch.images.read import in_bytes, read_pixels
from facerecon_torch.landmarks.point_tables import stored_convention
from facerecon_torch.report.gallery import GalleryCard, write_gallery

__all__ = ["GALLERY", "RunSummary", "gallery_of", "summary_of"]

GALLERY = "gallery.html"
_THUMBNAIL, _AROUND = 176, 0.35  # px; of the box's larger side, around it
_CARD_COLUMNS = ("input", "path", "face", "box", "score", "plausible", "camera", "files", *MEASURES)
_LINKS = {"overlay": "_overlay.jpg", "GLB": ".glb", "OBJ": ".obj", "texture": "_texture.png", "JSON": ".json"}


@dataclass
class RunSummary:
    """Counts, times and trust of a run.

    Attributes:
        counts: inputs by status, and faces.
        state: of the run, by its progress files.
        seconds: of the last call, of the slowest worker.
        rate: inputs a second of the last call, of all workers.
        trusted: number of faces.
        errors: predicted errors of all faces, mm.
        stages: where inputs without faces failed.
    """

    counts: RunCounts = field(default_factory=RunCounts)
    state: str = "unknown"
    seconds: float = 0.0
    rate: float = 0.0
    trusted: int = 0
    errors: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    stages: Counter[str] = field(default_factory=Counter)

    def facts(self) -> dict[str, str]:
        """The summary in words, by name."""
        facts = {"run": f"{self.state}; last call {self.seconds:.1f} s, {self.rate:.3g} inputs a second"}
        facts |= {"inputs": self.counts.line(), "faces": str(self.counts.faces)}
        if self.stages:
            facts["failed while"] = ", ".join(f"{stage} {count}" for stage, count in self.stages.most_common())
        if self.counts.faces:
            middle, high = np.quantile(self.errors, [0.5, 0.9])
            facts["trusted"] = f"{self.trusted} of {self.counts.faces} faces"
            facts["predicted error"] = f"{middle:.2f} mm in the median, {high:.2f} mm for nine of ten faces"
        return facts


def summary_of(output: Path) -> RunSummary:
    """The summary of a result folder, from its tables.

    Raises:
        DataFileError: it is no result folder of `facerecon infer`.
    """
    parts = part_files(output / PARAMETERS)
    if not parts:
        raise DataFileError(f"{output}: expected a result folder with {PARAMETERS}/part-*.parquet; it holds none")
    summary, errors = RunSummary(), []
    _read_progress(output, summary)
    for part in parts:
        table = pq.read_table(part, columns=["input", "plausible", "predicted_error_mm"])
        done = len(set(table.column("input").to_pylist()))
        summary.counts.add(RunCounts(Counter({"ok": done}), len(table)))
        summary.trusted += sum(table.column("plausible").to_pylist())
        errors.append(table.column("predicted_error_mm").to_numpy().astype(np.float32))
    summary.errors = np.concatenate(errors)
    for row in read_quarantine(output):
        summary.counts.statuses[row["status"]] += 1
        summary.stages[row["stage"] or "unknown"] += 1
    return summary


def _read_progress(output: Path, summary: RunSummary) -> None:
    """State and throughput, from progress.json or those of several workers."""
    states = set()
    for file in sorted(output.glob("progress*.json")):
        document = read_document(file)
        if document.get("format") == PROGRESS_FORMAT:
            states.add(str(document["state"]))
            summary.seconds = max(summary.seconds, float(document["seconds"]))
            summary.rate += float(document["inputs_per_second"])
    if states:
        summary.state = states.pop() if len(states) == 1 else "in several states"


def gallery_of(output: Path, summary: RunSummary, *, limit: int) -> Path:
    """The path of the gallery of a result folder.

    Args:
        output: the folder.
        summary: of it.
        limit: cards at most; inputs without faces have a quarter of them.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    cards = []
    for row in _first(_face_rows(output), limit):
        cards.append(_face_card(output, row))
    for row in _first(read_quarantine(output), max(1, limit // 4)):
        cards.append(_failure_card(output, row))
    facts = summary.facts()
    total = summary.counts.faces + summary.counts.failures
    if len(cards) < total:
        facts["shown"] = f"the first {len(cards)} of {total}"
    write_gallery(output / GALLERY, f"Faces in {output.resolve().name}", facts, cards)
    return output / GALLERY


def _first(rows: Iterator[dict[str, Any]], count: int) -> Iterator[dict[str, Any]]:
    for row, _ in zip(rows, range(count)):
        yield row


def _face_rows(output: Path) -> Iterator[dict[str, Any]]:
    for part in part_files(output / PARAMETERS):
        convention = stored_convention(part)
        for batch in pq.ParquetFile(part).iter_batches(256, columns=list(_CARD_COLUMNS)):
            yield from ({**row, "convention": convention} for row in batch.to_pylist())


def _face_card(output: Path, row: Mapping[str, Any]) -> GalleryCard:
    measures = {name: torch.tensor(float(row[column])) for column, name in MEASURES.items()}
    score = torch.tensor(float(row["score"]))
    plausibility = Plausibility(
        **measures,
        score=score,
        unsure=is_unsure(score, row["convention"]),
        degenerate=torch.tensor(bool(row["camera"]["degenerate"])),
    )
    stem = None if row["files"] is None else f"{row['files']}{face_suffix(row['face'])}"
    overlay = None if row["files"] is None else output / f"{row['files']}_overlay.jpg"
    shown = overlay if overlay is not None and overlay.is_file() else Path(row["path"])
    name = Path(row["path"]).name
    return GalleryCard(
        title=name if row["face"] == 0 else f"{name}, face {row['face'] + 1}",
        status="ok",
        trusted=bool(row["plausible"]),
        notes=plausibility.reasons(),
        error=float(row["predicted_error_mm"]),
        thumbnail=_thumbnail(shown, row["box"]),
        links={} if stem is None else _links(output, stem, row["files"]),
    )


def _links(output: Path, stem: str, of_image: str) -> dict[str, str]:
    """Addresses of the files that are there; the overlay is that of the whole image."""
    names = {name: f"{of_image if name == 'overlay' else stem}{ending}" for name, ending in _LINKS.items()}
    return {name: quote(place) for name, place in names.items() if (output / place).is_file()}


def _failure_card(output: Path, row: Mapping[str, Any]) -> GalleryCard:
    return GalleryCard(
        title=Path(row["path"]).name,
        status=row["status"],
        trusted=None,
        notes=[row["reason"] or ""],
        error=None,
        thumbnail=_thumbnail(Path(row["path"]), None) if row["status"] == "no_face" else None,
    )


def _thumbnail(path: Path, box: list[float] | None) -> bytes | None:
    """A square JPEG of the image, of what is around the box; None for what is no image file (any more)."""
    try:
        pixels = read_pixels(path)
    except (OSError, ImageFileError):
        return None
    image = Image.fromarray(in_bytes(pixels).permute(1, 2, 0).contiguous().numpy())
    if box is not None:
        middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        half = max(1.0, (0.5 + _AROUND) * max(box[2] - box[0], box[3] - box[1]))
        left, top, right, bottom = (round(v) for v in (*(m - half for m in middle), *(m + half for m in middle)))
        image = image.crop((left, top, right, bottom))
    stream = io.BytesIO()
    ImageOps.fit(image, (_THUMBNAIL, _THUMBNAIL)).save(stream, "JPEG", quality=80)
    return stream.getvalue()
