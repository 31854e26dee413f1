"""Turn pictures into normalised tensors: with augmentation for training, without for evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from ppl.errors import PPLValueError

__all__ = ["CropNormalizePad", "RandomResizeLong", "ResizeInside", "eval_transform", "train_transform"]

Size = int | tuple[int, int]


def train_transform(
    size: Size,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    resize_long: tuple[int, int] | None = None,
    hflip: float = 0.5,
    jitter: tuple[float, float, float, float] | None = (0.3, 0.3, 0.3, 0.1),
) -> v2.Compose:
    """Return the usual augmentation of the field: random resize of the longer side, flip, colour jitter, random crop.

    Pixels of the crop outside the picture are zero *after* normalisation, that is, of the mean colour. Random numbers
    come from torch's global generator.

    Args:
        size: height and width of the crop; one number for a square.
        mean: mean of each channel, of pixels in [0, 1].
        std: standard deviation of each channel.
        resize_long: range of the longer side after resizing; None: 5/8 to 5/4 of the crop's longer side, the ratio of
            IRN's 320..640 for crops of 512.
        hflip: probability of a horizontal flip.
        jitter: strength of brightness, contrast, saturation and hue jitter (PSA's values by default); None: no jitter.

    Returns:
        A transform from a PIL image to a (3, H, W) float32 tensor.

    Raises:
        PPLValueError: if the size or a range is invalid.

    Example:
        >>> transform = train_transform((96, 64), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        >>> transform(Image.new("RGB", (200, 100))).shape
        torch.Size([3, 96, 64])
    """
    height, width = _pair(size)
    if resize_long is None:
        longer = max(height, width)
        resize_long = (max(1, longer * 5 // 8), max(1, longer * 5 // 4))
    steps: list[nn.Module] = [RandomResizeLong(*resize_long), v2.RandomHorizontalFlip(hflip)]
    if jitter is not None:
        steps.append(v2.ColorJitter(*jitter))
    return v2.Compose([*steps, CropNormalizePad((height, width), mean, std, random=True)])


def eval_transform(size: Size, mean: Sequence[float], std: Sequence[float]) -> v2.Compose:
    """Return a transform that fits the whole picture into `size`, keeps its aspect ratio and pads with zeros.

    Args:
        size: height and width of the output; one number for a square.
        mean: mean of each channel, of pixels in [0, 1].
        std: standard deviation of each channel.

    Returns:
        A transform from a PIL image to a (3, H, W) float32 tensor.

    Raises:
        PPLValueError: if the size is invalid.

    Example:
        >>> tensor = eval_transform(64, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))(Image.new("RGB", (200, 100)))
        >>> tensor.shape, tensor[0, 0, 0].item(), tensor[0, 32, 32].item()
        (torch.Size([3, 64, 64]), 0.0, -2.0)
    """
    return v2.Compose([ResizeInside(_pair(size)), CropNormalizePad(_pair(size), mean, std, random=False)])


class RandomResizeLong(nn.Module):
    """Resize a picture so that its longer side has a random length."""

    def __init__(self, low: int, high: int) -> None:
        super().__init__()
        if not 1 <= low <= high:
            raise PPLValueError(f"resize_long is {low}..{high}; it must be a rising range of lengths from 1 on")
        self.low, self.high = low, high

    @property
    def at_least(self) -> int:
        """Length of the picture's longer side below which the transform would enlarge the picture."""
        return self.high

    def forward(self, image: Image.Image) -> Image.Image:
        """Resize a PIL image."""
        longer = int(torch.randint(self.low, self.high + 1, ()))
        return _resize(image, longer / max(image.size))


class ResizeInside(nn.Module):
    """Resize a picture to the largest size with the same aspect ratio that fits into (height, width)."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    @property
    def at_least(self) -> int:
        """Length of the picture's longer side below which the transform would enlarge the picture."""
        return max(self.size)

    def forward(self, image: Image.Image) -> Image.Image:
        """Resize a PIL image."""
        return _resize(image, min(self.size[0] / image.height, self.size[1] / image.width))


class CropNormalizePad(nn.Module):
    """Crop or pad a picture to a fixed size and normalise it; the padding is zero after normalisation.

    Args:
        size: (height, width) of the output.
        mean: mean of each channel, of pixels in [0, 1].
        std: standard deviation of each channel.
        random: place crop and picture at random instead of in the middle.
    """

    def __init__(self, size: tuple[int, int], mean: Sequence[float], std: Sequence[float], *, random: bool) -> None:
        super().__init__()
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise PPLValueError(f"mean {mean} and std {std} must be three numbers each, std above zero")
        self.size, self.mean, self.std, self.random = size, list(mean), list(std), random

    def forward(self, image: Image.Image) -> Tensor:
        """Convert a PIL image to (3, height, width) float32."""
        height, width = self.size
        inside = min(height, image.height), min(width, image.width)
        top, left = self._place(image.height - inside[0]), self._place(image.width - inside[1])
        image = image.crop((left, top, left + inside[1], top + inside[0]))
        pixels: Tensor = F.to_dtype(F.pil_to_tensor(image), torch.float32, scale=True)
        pixels = F.normalize(pixels, self.mean, self.std, inplace=True)
        if inside == self.size:
            return pixels
        top, left = self._place(height - inside[0]), self._place(width - inside[1])
        canvas = pixels.new_zeros(3, height, width)
        canvas[:, top : top + inside[0], left : left + inside[1]] = pixels
        return canvas

    def _place(self, room: int) -> int:
        return int(torch.randint(room + 1, ())) if self.random else room // 2


def _resize(image: Image.Image, ratio: float) -> Image.Image:
    width, height = max(1, round(image.width * ratio)), max(1, round(image.height * ratio))
    # with reducing_gap a large shrink begins with fast box filters; from 2.0 on pixels hardly differ
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)


def _pair(size: Size) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise PPLValueError(f"size {size} is not an image size; give (height, width) or one number from 1 on")
    return height, width
