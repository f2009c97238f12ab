"""How readers of data sets report damage: `formats.damage`, under the name that they know it by."""

from facerecon_torch.formats.damage import (
    damaged,
    file_size,
    read_ascii,
    read_lines,
    reading,
    require_data_file,
    require_range,
    shown,
    strict_float,
)

__all__ = [
    "damaged",
    "file_size",
    "read_ascii",
    "read_lines",
    "reading",
    "require_data_file",
    "require_range",
    "shown",
    "strict_float",
]
