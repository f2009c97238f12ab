"""Recognition of this package's result files: a run replaces no others."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import safe_open

from facerecon_torch.evaluation.tables import METRICS_FORMAT
from facerecon_torch.formats.face_document import FACE_FORMAT
from facerecon_torch.formats.json_file import parse_json

__all__ = [
    "ABOUT_FORMAT",
    "FAILURES_FORMAT",
    "PROGRESS_FORMAT",
    "REPORT_FORMAT",
    "RUN_FORMAT",
    "SUMMARY_FORMAT",
    "is_own",
    "read_document",
    "require_own",
    "require_own_folder",
]

ABOUT_FORMAT, FAILURES_FORMAT = "facerecon-released", "facerecon-failures"
PROGRESS_FORMAT, RUN_FORMAT = "facerecon-progress", "facerecon-run"
REPORT_FORMAT, SUMMARY_FORMAT = "facerecon-report", "facerecon-summary"
_JSON_FORMATS = frozenset(
    {
        ABOUT_FORMAT,
        FACE_FORMAT,
        FAILURES_FORMAT,
        METRICS_FORMAT,
        PROGRESS_FORMAT,
        REPORT_FORMAT,
        RUN_FORMAT,
        SUMMARY_FORMAT,
    }
)
_MARK = b"facerecon_torch"
_CONFIG = b"# facerecon "  # begins a recorded config
_LARGEST = 64 * 10**6  # bytes of a JSON document
_HEAD = 4096  # bytes of a mesh or picture in which its mark stands


def is_own(path: Path) -> bool:
    """Whether a file bears the mark of this package's results."""
    if not path.is_file():
        return False
    try:
        if path.suffix == ".json":
            return read_document(path).get("format") in _JSON_FORMATS
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            return b"facerecon_format" in (pq.read_schema(path).metadata or {})
        if path.suffix == ".arrow":
            import pyarrow as pa

            with pa.OSFile(str(path), "rb") as file, pa.ipc.open_file(file) as table:
                return b"facerecon_format" in (table.schema.metadata or {})
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as opened:
                return "facerecon" in (opened.metadata() or {})
        with open(path, "rb") as file:
            head = file.read(_HEAD)
        return head.startswith(_CONFIG) if path.suffix == ".yaml" else _MARK in head
    except Exception:  # damage of any kind, in a file of anybody
        return False


def require_own(paths: Iterable[Path]) -> None:
    """Raise FileExistsError where one of `paths` exists and is not a result of this package."""
    for path in paths:
        if (path.exists() or path.is_symlink()) and not is_own(path):
            came = "a folder" if path.is_dir() else "a file that this program did not write"
            raise FileExistsError(f"{path}: expected a free name or an earlier result; got {came}")


def require_own_folder(folder: Path, mark: str) -> None:
    """Raise FileExistsError where `folder` has files and none of them is a result of this package named `mark`."""
    if folder.is_dir() and not is_own(folder / mark) and (entry := next(folder.iterdir(), None)) is not None:
        raise FileExistsError(f"{folder}: expected a new or empty folder, or an earlier result; it holds {entry.name}")


def read_document(path: Path) -> dict[str, Any]:
    """The object in a JSON file of this package; empty for a file too large to be one, and for other JSON.

    Raises:
        OSError: the file cannot be read.
        DataFileError: it holds no JSON.
    """
    if path.stat().st_size > _LARGEST:
        return {}
    content = parse_json(path.read_bytes(), path)
    return content if isinstance(content, dict) else {}
