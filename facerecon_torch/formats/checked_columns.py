"""Columns of tensors in safetensors files that carry the SHA-256 of their content, so that damage is noticed."""

import errno
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from facerecon_torch.errors import DataFileError
from facerecon_torch.files import replacing

__all__ = ["columns_digest", "load_columns", "save_columns"]

_DIGEST = "sha256"


def save_columns(path: Path, columns: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors and texts to a file, aside first; no second copy of the tensors is made.

    Args:
        path: of the file.
        columns: tensors by name.
        metadata: texts by name; the name `sha256` is taken.

    Raises:
        OSError: the disk is full, or the file cannot be written.

    Example:
        >>> save_columns(Path("rows.safetensors"), {"x": torch.zeros(3)})
    """
    stored = {name: values.detach().cpu().contiguous() for name, values in columns.items()}
    texts = dict(metadata or {})
    with replacing(path) as aside:
        try:
            save_file(stored, aside, metadata={**texts, _DIGEST: columns_digest(stored, texts)})
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else errno.EIO, str(error), str(path)) from error


def load_columns(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and texts of a file that `save_columns` wrote.

    Raises:
        DataFileError: the file is missing, is no safetensors file, or its content is not what was written.
    """
    if not path.is_file():
        raise DataFileError(f"{path}: expected a safetensors file; got nothing")
    try:
        with safe_open(str(path), framework="pt") as file:
            columns = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except SafetensorError as error:
        raise DataFileError(f"{path}: expected a complete safetensors file; {error}") from error
    digest = metadata.pop(_DIGEST, None)
    if digest != columns_digest(columns, metadata):
        got = "none" if digest is None else "another one"
        raise DataFileError(f"{path}: expected content with the SHA-256 that was written beside it; got {got}")
    return columns, metadata


def columns_digest(columns: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """The SHA-256 of tensors and texts, in hex."""
    digest = hashlib.sha256(repr(sorted(metadata.items())).encode())
    for name, values in sorted(columns.items()):
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        flat = values.reshape(-1)
        if flat.stride(0) != 1:  # as a single value may have
            flat = torch.empty(len(flat), dtype=flat.dtype).copy_(flat)
        digest.update(flat.view(torch.uint8).numpy().data if len(flat) else b"")
    return digest.hexdigest()
