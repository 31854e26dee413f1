"""Read and write images, masks and files that appear whole or not at all."""

from __future__ import annotations

from ppl.io.files import FileWriteError, atomic_folder, atomic_write
from ppl.io.fingerprint import fingerprint, fingerprint_weights, sha256
from ppl.io.images import BadImageError, ImageFile, image_size, read_image, to_rgb
from ppl.io.listing import IMAGE_SUFFIXES, list_images
from ppl.io.masks import mask_image, palette, read_mask, write_mask

__all__ = [
    "IMAGE_SUFFIXES",
    "BadImageError",
    "FileWriteError",
    "ImageFile",
    "atomic_folder",
    "atomic_write",
    "fingerprint",
    "fingerprint_weights",
    "image_size",
    "list_images",
    "mask_image",
    "palette",
    "read_image",
    "read_mask",
    "sha256",
    "to_rgb",
    "write_mask",
]
