"""The bottom floor: images, masks and whole-or-not-at-all files, in and out."""

from __future__ import annotations

from ppl.io.files import FileWriteError, atomic_folder, atomic_write
from ppl.io.fingerprint import fingerprint, fingerprint_weights, sha256
from ppl.io.images import BadImageError, image_size, read_image, to_rgb
from ppl.io.listing import IMAGE_SUFFIXES, list_images
from ppl.io.masks import mask_image, palette, read_mask, write_mask

__all__ = [
    "IMAGE_SUFFIXES",
    "BadImageError",
    "FileWriteError",
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
