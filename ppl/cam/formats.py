"""Map files of other projects: IRN's, PSA's and Puzzle-CAM's dictionaries, read and written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ppl.cam.result import CamResult
from ppl.errors import PPLFileNotFoundError, PPLTypeError, PPLValueError
from ppl.io.files import atomic_write
from ppl.registry import Registry

__all__ = ["MAP_FORMATS", "MapFormat", "read_maps", "register_map_format", "write_maps"]

Content = Mapping[Any, Any]


@dataclass(frozen=True)
class MapFormat:
    """A kind of `.npy` file that holds the maps of one image as a pickled dictionary.

    Attributes:
        unpack: from the dictionary to the result.
        pack: from the result to the dictionary.
    """

    unpack: Callable[[Content], CamResult]
    pack: Callable[[CamResult], dict[Any, Any]]


MAP_FORMATS: Registry[MapFormat] = Registry("format of maps")
"""The formats by name."""


def register_map_format(name: str, kind: MapFormat) -> None:
    """Add a format; `read_maps`, `write_maps`, `ppl import` and `ppl export` know the name from then on.

    Args:
        name: the name of the format.
        kind: the two directions.

    Raises:
        PPLValueError: if there is another format of that name.

    Example:
        >>> from ppl.cam import MapFormat, register_map_format
        >>> def unpack(content):
        ...     maps = torch.as_tensor(content["attn_highres"]).float()
        ...     classes = torch.as_tensor(content["keys"])
        ...     return CamResult(maps, classes, torch.full((len(maps),), torch.nan), tuple(maps.shape[1:]))
        >>> def pack(result):
        ...     return {"keys": result.classes.numpy(), "attn_highres": result.maps.half().numpy()}
        >>> register_map_format("clip_es", MapFormat(unpack, pack))
    """
    MAP_FORMATS.register(name, kind)


def read_maps(path: str | os.PathLike[str], kind: str, *, allow_pickle: bool = False) -> CamResult:
    """Read the maps of one image from a file of another project.

    Args:
        path: a `.npy` file.
        kind: "irn" (also ReCAM, AMN, LPCAM): `keys`, `cam`, `high_res`; "psa" (also SEAM, CPN): one map by class
            index; "puzzle" (Puzzle-CAM): `keys` from 1 with a leading 0, `cam`, `hr_cam`; or a registered name.
        allow_pickle: unpickle the file. A pickle can run any code, so this is for files that you trust.

    Returns:
        Maps at the size of the file's largest ones, classes from 0 in rising order, scores NaN.

    Raises:
        PPLValueError: without `allow_pickle`, or if the file is broken, of another format, or contradicts itself.
        PPLFileNotFoundError: if there is no such file.

    Example:
        >>> import tempfile
        >>> result = CamResult(torch.rand(1, 8, 12), torch.tensor([14]), torch.ones(1), (8, 12))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_maps(f"{folder}/2007_000032.npy", result, "irn")
        ...     again = read_maps(f"{folder}/2007_000032.npy", "irn", allow_pickle=True)
        >>> again.classes.tolist(), tuple(again.maps.shape)
        ([14], (1, 8, 12))
    """
    unpack = MAP_FORMATS.find(kind).unpack
    if not allow_pickle:
        raise PPLValueError(
            f"{os.fspath(path)} is a pickle, which can run any code when it is opened; for files that you trust pass "
            "allow_pickle=True (--allow-pickle)"
        )
    try:
        content = np.load(path, allow_pickle=True)
        content = content.item() if isinstance(content, np.ndarray) and content.dtype == object else content
    except FileNotFoundError as error:
        raise PPLFileNotFoundError(f"no file of maps at {os.fspath(path)}") from error
    except Exception as error:  # a pickle may raise anything
        raise PPLValueError(f"{os.fspath(path)} cannot be read ({error}): write it again") from error
    try:
        if not isinstance(content, Mapping):
            raise PPLTypeError(f"it holds a {type(content).__name__}, not a dictionary")
        return unpack(content)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        what = f"lacks the key {error}" if isinstance(error, KeyError) else str(error)
        keys = f"; its keys are {', '.join(map(repr, list(content)[:6]))}" if isinstance(content, Mapping) else ""
        raise PPLValueError(f"{os.fspath(path)} is no file of format {kind!r}: {what}{keys}") from error


def write_maps(path: str | os.PathLike[str], result: CamResult, kind: str) -> None:
    """Write the maps of one image as a file of another project, whose code reads it as its own.

    Args:
        path: a `.npy` file; it appears whole or not at all.
        result: the maps; maps of another size than the image's are resized to it.
        kind: as for :func:`read_maps`.

    Raises:
        PPLValueError: if the format is unknown.
        FileWriteError: if the file cannot be written.
    """
    result = result.to("cpu")
    if tuple(result.maps.shape[1:]) != result.size:
        result = CamResult(_resized(result.maps, result.size), result.classes, result.scores, result.size)
    content = MAP_FORMATS.find(kind).pack(result)
    with atomic_write(path) as handle:
        np.save(handle, np.array(content, dtype=object), allow_pickle=True)


def _result(maps: Any, classes: Any) -> CamResult:
    """Return maps and classes in the order of the classes."""
    values = torch.from_numpy(_array(maps, np.float32))
    numbers = torch.from_numpy(_array(classes, np.int64))
    if not len(numbers):
        values = values.new_zeros(0, *(values.shape[1:] if values.ndim == 3 else (0, 0)))
    if values.ndim != 3 or numbers.shape != values.shape[:1]:
        shapes = f"{tuple(values.shape)} and {tuple(numbers.shape)}"
        raise PPLValueError(f"maps must be (k,h,w) and class indices (k,), got {shapes}")
    if len(numbers) and (int(numbers.min()) < 0 or len(set(numbers.tolist())) < len(numbers)):
        raise PPLValueError(f"class indices must be different and 0 or more, got {numbers.tolist()}")
    if not bool(values.isfinite().all()):
        raise PPLValueError("a map holds NaN or infinity")
    order = numbers.argsort()
    size = (values.shape[1], values.shape[2])
    return CamResult(values[order], numbers[order], torch.full((len(order),), torch.nan), size)


def _array(values: Any, dtype: Any) -> npt.NDArray[Any]:
    """Return numbers as an array that owns its memory; tensors of any device and lists of maps are understood."""
    if isinstance(values, Tensor):
        values = values.detach().float().cpu().numpy() if dtype == np.float32 else values.detach().cpu().numpy()
    elif isinstance(values, (list, tuple)):
        values = [_array(value, dtype) for value in values]
    found = np.array(values)
    if found.dtype == object or (dtype == np.int64 and found.size and not np.issubdtype(found.dtype, np.integer)):
        raise PPLTypeError(f"numbers are wanted, and {found.dtype} is there")
    return found.astype(dtype)


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if not len(maps):
        return maps.new_zeros(0, *size)
    return F.interpolate(maps[None].float(), size, mode="bilinear", align_corners=False)[0]


def _quarter(maps: Tensor) -> Tensor:
    """Return maps at a quarter of their size, rounded as IRN does."""
    return _resized(maps, ((maps.shape[1] - 1) // 4 + 1, (maps.shape[2] - 1) // 4 + 1))


def _from_irn(content: Content) -> CamResult:
    return _result(content["high_res" if "high_res" in content or "cam" not in content else "cam"], content["keys"])


def _to_irn(result: CamResult) -> dict[Any, Any]:
    maps = result.maps.float()
    return {"keys": result.classes.long(), "cam": _quarter(maps), "high_res": maps.numpy()}


def _from_puzzle(content: Content) -> CamResult:
    keys = _array(content["keys"], np.int64)
    if not keys.size or keys.flat[0] != 0:
        raise PPLValueError(f"keys begin with the background's 0, got {keys.tolist()}; of IRN's files say format irn")
    return _result(content[next((key for key in ("hr_cam", "rw") if key in content), "cam")], keys[1:] - 1)


def _to_puzzle(result: CamResult) -> dict[Any, Any]:
    maps = result.maps.float()
    keys = np.pad(result.classes.numpy() + 1, (1, 0))
    return {"keys": keys, "cam": _quarter(maps), "hr_cam": maps.numpy()}


def _from_psa(content: Content) -> CamResult:
    if not all(isinstance(key, (int, np.integer)) for key in content):
        raise PPLTypeError("its keys are no class indices")
    maps = [_array(value, np.float32) for value in content.values()]
    if 0 in content and len(maps) > 1 and np.allclose(sum(maps), 1.0, atol=1e-3):
        raise PPLValueError(
            "its maps add up to 1 at every pixel: these are probabilities after a CRF, with the background as 0, and "
            "class maps are wanted"
        )
    return _result(np.stack(maps) if maps else np.zeros((0, 0, 0)), [int(key) for key in content])


def _to_psa(result: CamResult) -> dict[Any, Any]:
    return dict(zip(result.classes.tolist(), result.maps.float().numpy(), strict=True))


MAP_FORMATS.register("irn", MapFormat(_from_irn, _to_irn))
MAP_FORMATS.register("psa", MapFormat(_from_psa, _to_psa))
MAP_FORMATS.register("puzzle", MapFormat(_from_puzzle, _to_puzzle))
