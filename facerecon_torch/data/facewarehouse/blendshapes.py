"""shape.bs: see `formats.blendshapes`."""

from facerecon_torch.formats.blendshapes import (
    MM_PER_UNIT,
    REACH,
    BlendshapeHeader,
    iter_blendshapes,
    read_blendshape_header,
    read_blendshapes,
    save_blendshapes,
)

__all__ = [
    "MM_PER_UNIT",
    "REACH",
    "BlendshapeHeader",
    "iter_blendshapes",
    "read_blendshape_header",
    "read_blendshapes",
    "save_blendshapes",
]
