"""JSON documents from files that may be damaged or hostile."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facerecon_torch.errors import DataFileError, FaceReconError

__all__ = ["parse_json", "read_json", "require_entries"]


def parse_json(text: str | bytes, source: object, error: type[FaceReconError] = DataFileError) -> Any:
    """The value of a JSON document.

    Args:
        text: the document, UTF-8 if bytes.
        source: where it comes from; begins the message of errors.
        error: type of the error.

    Raises:
        FaceReconError: of the type `error`, for text that is no JSON, is nested too deeply or has a number of too many
            digits.

    Example:
        >>> parse_json('{"a": 1}', "settings.json")
        {'a': 1}
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as reason:  # of bytes that are no UTF-8 and of long numbers: ValueError
        raise error(f"{source}: expected a JSON document; {reason}") from None


def read_json(path: Path, error: type[FaceReconError] = DataFileError) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        FaceReconError: of the type `error`, where the file holds none.
        OSError: the file cannot be read.
    """
    document = parse_json(path.read_bytes(), path, error)
    if not isinstance(document, dict):
        raise error(f"{path}: expected a JSON object; got {type(document).__name__}")
    return document


def require_entries(document: Any, kinds: Mapping[str, type], where: object) -> None:
    """Raise DataFileError unless `document` is an object that has an entry of each type.

    Args:
        document: a JSON value.
        kinds: type of each entry by its key; `list` is a list of texts.
        where: the document's place, for the message.
    """
    if not isinstance(document, dict):
        raise DataFileError(f"{where}: expected an object; got {type(document).__name__}")
    for key, kind in kinds.items():
        if key not in document:
            raise DataFileError(f"{where}: {key}: expected a {kind.__name__}; got nothing")
        value = document[key]
        fits = isinstance(value, kind)
        if kind is list and isinstance(value, list):
            fits = all(isinstance(entry, str) for entry in value)
        if not fits:
            wanted = "list of texts" if kind is list else kind.__name__
            raise DataFileError(f"{where}: {key}: expected a {wanted}; got {type(value).__name__}")
