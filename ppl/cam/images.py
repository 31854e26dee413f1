"""Images of every kind as the normalised tensors that a classifier was trained on."""

from __future__ import annotations

import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, SequentialSampler

from ppl.errors import PPLTypeError, PPLValueError
from ppl.io.images import DARK, ImageFile, image_info, read_image, to_rgb

__all__ = [
    "ImageLike",
    "as_images",
    "check_images",
    "check_order",
    "count_images",
    "normalized",
    "read_ahead",
    "to_pixels",
    "to_tensor",
]

ImageLike: TypeAlias = Tensor | Image.Image | npt.NDArray[np.uint8] | str | os.PathLike[str]
"""One image: a normalised tensor (3,H,W), a PIL image, an array (H,W,3) of uint8 in RGB order, or a path."""

_DECODING = threading.Lock()
_READERS = 4  # threads that decode, and the number of pictures that are decoded ahead of their turn
_LARGE = 2**24  # pixels of a picture from which on none is decoded ahead: a few of them would fill the memory
# A normalised tensor stays below 4 times what black and white pixels become, noise included, and below 20.
_FACTOR, _LIMIT = 4, 20.0


def check_images(images: Any) -> None:
    """Raise PPLTypeError or PPLValueError unless `images` is a collection of single images."""
    if isinstance(images, (str, os.PathLike, Image.Image)):
        raise PPLTypeError(f"images must be a tensor (B,3,H,W) or a list, got {images!r}: write [{images!r}]")
    if isinstance(images, np.ndarray) and images.dtype.kind in "biuf" and images.ndim != 4:
        raise PPLTypeError(
            f"images must be a list of arrays (H,W,3), got one array of shape {images.shape}: write [image]"
        )
    if isinstance(images, Tensor) and images.ndim != 4:
        raise PPLValueError(
            f"images must have shape (B,3,H,W), got {tuple(images.shape)}: add the batch axis or a list"
        )
    if not hasattr(images, "__iter__") and not isinstance(images, Dataset):
        raise PPLTypeError(f"images must be a tensor (B,3,H,W) or a list, got {type(images).__name__}")


def check_order(images: Any) -> None:
    """Raise PPLValueError for a loader in another order than that of its dataset, to which no labels can be given."""
    sampler = getattr(getattr(images, "batch_sampler", None), "sampler", None)
    if isinstance(images, DataLoader) and sampler is not None and not isinstance(sampler, SequentialSampler):
        raise PPLValueError(
            "labels are in the order of the dataset, and the DataLoader is in that of a "
            f"{type(sampler).__name__}: make it with shuffle=False, or pass loader.dataset"
        )


def count_images(images: Any) -> int | None:
    """Return the number of images; None if it is not known yet."""
    if isinstance(images, DataLoader):
        return None
    return len(images) if isinstance(images, Sized) else None


def as_images(images: Any) -> Iterable[Any]:
    """Return the images of a torch `Dataset` or `DataLoader`, without its targets; other collections as given."""
    if isinstance(images, DataLoader):
        return _images_of_batches(images)
    return _ImagesOf(images) if isinstance(images, Dataset) else images


def _images_of_batches(loader: DataLoader[Any]) -> Iterator[Any]:
    for batch in loader:
        if isinstance(batch, Mapping):
            keys = ", ".join(map(repr, batch))
            raise PPLTypeError(
                f"the DataLoader returns mappings with the keys {keys}: pass the images alone, as a list or a generator"
            )
        yield from batch[0] if isinstance(batch, (tuple, list)) and not _is_one(batch) else batch


def _is_one(batch: Any) -> bool:
    """Tell whether a list is a batch of single images, as a collate function of one's own may return."""
    return bool(batch) and isinstance(batch[0], Tensor) and batch[0].ndim == 3


class _ImagesOf:
    """The images of a dataset, without its targets."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[Any]:
        iterable = hasattr(self.dataset, "__iter__")
        items = iter(self.dataset) if iterable else (self.dataset[index] for index in range(len(self.dataset)))
        for item in items:
            yield item[0] if isinstance(item, (tuple, list)) else item


def to_tensor(image: ImageLike, data_config: dict[str, Any], number: int) -> Tensor:
    """Return one image as a normalised tensor of its own size.

    Args:
        image: a path, PIL image or array, which is normalised with the model's mean and standard deviation; or a
            tensor (C,H,W) that is normalised already.
        data_config: the model's "mean", "std" and "input_size".
        number: index of the image in the list, for messages.

    Returns:
        (C,H,W) floating point.

    Raises:
        PPLTypeError: for anything else, a tensor of integers and an array of other numbers than uint8 among them.
        PPLValueError: if the channels are not the model's, the image is empty or holds NaN, a PIL image holds values
            outside 0..65535, or a file is no image.
        PPLFileNotFoundError: if there is no such file.

    Example:
        >>> config = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "input_size": (3, 32, 32)}
        >>> to_tensor(Image.new("RGB", (1, 1), (255, 0, 255)), config, 0).flatten().tolist()
        [2.0, -2.0, 2.0]
    """
    return normalized(to_pixels(image, data_config, number), data_config)


def normalized(pixels: Tensor, data_config: dict[str, Any]) -> Tensor:
    """Return the pixels of :func:`to_pixels` as the model takes them; what is normalised stays as it is.

    Args:
        pixels: (..., C,H,W), on any device.
        data_config: the model's "mean" and "std".
    """
    if pixels.dtype != torch.uint8:
        return pixels
    mean, std = (torch.tensor(data_config[key], dtype=torch.float32, device=pixels.device) for key in ("mean", "std"))
    if pixels.shape[-3] == 1:
        mean, std = mean.mean()[None], std.mean()[None]
    return pixels.float().div_(255).sub_(mean[:, None, None]).div_(std[:, None, None])


def to_pixels(image: ImageLike, data_config: dict[str, Any], number: int) -> Tensor:
    """Return one image as :func:`to_tensor` does, but a picture as (C,H,W) uint8, in a quarter of the memory."""
    channels = int(data_config["input_size"][0])
    if isinstance(image, np.ndarray):
        image = _picture(image, channels, number)
    elif isinstance(image, (str, os.PathLike)):
        if not isinstance(image, ImageFile):
            _warn_if_dark(image_info(image).largest)
        image = read_image(image)
    elif isinstance(image, Image.Image):
        image = _decoded(image, number)
    if isinstance(image, Image.Image):
        return _pixels(image, channels, number)
    if not isinstance(image, Tensor):
        raise PPLTypeError(f"image {number} must be a tensor, PIL image, array or path, got {type(image).__name__}")
    if not image.is_floating_point():
        raise PPLTypeError(
            f"image {number} is a tensor of {image.dtype}: normalise it, or pass a PIL image or path to have that done"
        )
    if image.ndim != 3 or image.shape[0] != channels or 0 in image.shape:
        raise PPLValueError(f"image {number} must have shape ({channels},H,W), got {tuple(image.shape)}")
    _check_values(image, data_config, number)
    return image


def read_ahead(
    images: Iterable[ImageLike],
    data_config: dict[str, Any],
    read: Callable[[ImageLike, dict[str, Any], int], Tensor] = to_tensor,
) -> Iterator[Tensor]:
    """Yield images as tensors, in order; threads decode a few pictures ahead of their turn.

    Behind a picture of more than 16 million pixels none is decoded ahead.

    Args:
        images: the images.
        data_config: see :func:`to_tensor`.
        read: :func:`to_tensor` or :func:`to_pixels`.

    Raises:
        PPLTypeError, PPLValueError, PPLFileNotFoundError: as :func:`to_tensor`, at the turn of the image.
    """
    allowed = 0  # until the size of a picture is known
    with ThreadPoolExecutor(_READERS) as readers:
        ahead: deque[Future[Tensor]] = deque()
        for number, image in enumerate(images):
            ahead.append(readers.submit(read, image, data_config, number))
            while len(ahead) > (0 if isinstance(image, Tensor) else allowed):
                tensor = ahead.popleft().result()
                allowed = 0 if tensor[0].numel() > _LARGE else _READERS
                yield tensor
        while ahead:
            yield ahead.popleft().result()


def _check_values(image: Tensor, data_config: dict[str, Any], number: int) -> None:
    """Refuse NaN, and warn of values that no normalised picture has."""
    low, high = torch.stack(torch.aminmax(image.detach())).tolist()
    largest = max(-low, high)
    if not largest < float("inf"):  # NaN fails the comparison too.
        raise PPLValueError(f"image {number} holds NaN or infinity: mend it or take it out")
    pairs = zip(data_config["mean"], data_config["std"], strict=False)
    usual = max(max(mean, 1 - mean) / std for mean, std in pairs)
    if largest > max(_LIMIT, _FACTOR * usual):
        warnings.warn(
            f"image {number} holds {largest:.3g}, but a normalised picture stays within {usual:.3g}: are these pixels "
            "of 0..255? Divide by 255 and normalise, or pass PIL images, arrays of uint8 or paths",
            stacklevel=2,
        )
    elif low >= 0 and 0.5 < high <= 1 and min(data_config["mean"]) > 0.1:  # the text is the same for all images
        warnings.warn(
            "tensors of images lie within 0..1: are these pixels that are not normalised? Subtract the model's mean, "
            "divide by its standard deviation, or pass PIL images, arrays of uint8 or paths",
            stacklevel=2,
        )


def _warn_if_dark(largest: int | None) -> None:
    """Warn of the largest value of a 16-bit picture if the picture becomes nearly black."""
    if largest is not None and 0 < largest <= DARK:  # the text is the same for all pictures
        warnings.warn(
            "pictures of 16 bits with small values alone, as of a 12-bit camera, become nearly black: give their "
            "range, ppl.io.read_image(path, value_range=4095)",
            stacklevel=2,
        )


def _pixels(image: Image.Image, channels: int, number: int) -> Tensor:
    if channels == 1:
        image = image.convert("L")
    elif channels != 3:
        raise PPLTypeError(_of_other_channels(number, channels))
    return torch.from_numpy(np.array(image)).reshape(image.height, image.width, channels).permute(2, 0, 1)


def _of_other_channels(number: int, channels: int) -> str:
    """Return the message for a picture that is given to a model of many bands."""
    return (
        f"image {number} is a picture, which is read as 3 channels, but the model takes {channels}: pass normalised "
        f"tensors ({channels},H,W)"
    )


def _picture(image: npt.NDArray[Any], channels: int, number: int) -> Image.Image:
    """Return a uint8 array (H,W), (H,W,1), (H,W,3) or (H,W,4) as an RGB picture."""
    if image.ndim == 3 and channels not in (1, 3) and channels in (image.shape[0], image.shape[2]):
        raise PPLTypeError(_of_other_channels(number, channels))
    if image.dtype != np.uint8:
        raise PPLTypeError(
            f"image {number} is an array of {image.dtype}: pass uint8 (H,W,3) in RGB order, or a normalised tensor "
            "(3,H,W)"
        )
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))) or 0 in image.shape:
        fix = ": pass array.transpose(1, 2, 0)" if image.ndim == 3 and image.shape[0] in (1, 3, 4) else ""
        raise PPLValueError(f"image {number} must be an array (H,W,3) of uint8, got shape {image.shape}{fix}")
    return to_rgb(Image.fromarray(np.ascontiguousarray(image)))


def _decoded(image: Image.Image, number: int) -> Image.Image:
    """Decode a PIL image into upright RGB; a lock, since PIL reads pixels on first use and a list may hold it twice."""
    try:
        with _DECODING:
            image.load()
        if image.mode.startswith("I"):
            _warn_if_dark(int(np.asarray(image).max()))
        return to_rgb(image)
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, ... on broken bytes
        raise PPLValueError(f"image {number} cannot be decoded: {error}; replace it or take it out") from error
