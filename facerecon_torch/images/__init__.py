"""Image files to tensors and back; all decoding of files stands behind `read_pixels` and `read_image`."""

from facerecon_torch.images.read import IMAGE_SUFFIXES, Pixels, in_unit_range, read_image, read_pixels
from facerecon_torch.images.write import save_png

__all__ = ["IMAGE_SUFFIXES", "Pixels", "in_unit_range", "read_image", "read_pixels", "save_png"]
