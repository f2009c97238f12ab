"""Image files to tensors and back; all decoding stands behind `read_image`."""

from facerecon_torch.images.read import IMAGE_SUFFIXES, list_images, read_image
from facerecon_torch.images.write import save_png

__all__ = ["IMAGE_SUFFIXES", "list_images", "read_image", "save_png"]
