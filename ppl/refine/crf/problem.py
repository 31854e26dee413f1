"""An image and its energies, checked and ready for an engine; several of them go through PyTorch together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl.errors import PPLTypeError, PPLValueError
from ppl.refine.crf.backends import crf_backend, engine
from ppl.refine.crf.presets import CRFPreset, preset
from ppl.refine.crf.validation import (
    CLIP,
    CRFSettings,
    check_image,
    check_image_tensor,
    check_labels,
    check_probs,
    check_probs_tensor,
    device_of,
    to_caller,
)

__all__ = ["Problem", "from_labels", "from_preset", "from_probs", "solve"]


@dataclass(frozen=True)
class Problem:
    """One inference that is ready to run.

    Attributes:
        backend: the engine's name.
        device: where it computes.
        settings: checked numbers.
        image: (H, W, 3) uint8, contiguous; a tensor on the device for the torch engine, like the energies.
        unary: (L, H, W) float32 energies; a single label is certain and needs no engine.
        finish: from the probabilities of these labels to what the caller gets.
        copies: how many labels the last energy stands for.
    """

    backend: str
    device: str
    settings: CRFSettings
    image: Any
    unary: Any
    finish: Callable[[Any], Any]
    copies: int = 1

    @property
    def pixels(self) -> int:
        """Height times width."""
        return int(self.image.shape[0] * self.image.shape[1])


def solve(problems: Sequence[Problem]) -> list[Any]:
    """The answers to problems of the same settings, engine and device; PyTorch computes them together."""
    hard = [problem for problem in problems if len(problem.unary) > 1]
    if hard and hard[0].backend == "torch":
        from ppl.refine.crf.torch_engine import mean_field_batch

        first = hard[0]
        images, unaries, copies = zip(*((one.image, one.unary, one.copies) for one in hard), strict=True)
        solved = iter(mean_field_batch(images, unaries, first.settings, copies, first.device))
    else:
        solved = (engine(one.backend)(one.image, one.unary, one.settings, one.copies) for one in hard)
    return [one.finish(next(solved) if len(one.unary) > 1 else one.unary * 0 + 1) for one in problems]


def from_probs(image: Any, probs: Any, *, backend: str = "auto", **settings: Any) -> Problem:
    """The problem that `ppl.refine.crf` solves."""
    checked, device = CRFSettings(**settings), device_of(probs)
    name = crf_backend(backend, device)
    pixels, maps, present = _checked(name, image, probs, device)
    checked.check_range(*pixels.shape[:2])

    def finish(refined: Any) -> Any:
        if len(present) == len(maps):
            return to_caller(refined, probs)
        result = _zeros(refined, len(maps))
        result[present] = refined
        return to_caller(result, probs)

    return Problem(name, device, checked, pixels, _energies(maps, present), finish)


def _checked(name: str, image: Any, probs: Any, device: str) -> tuple[Any, Any, NDArray[np.intp]]:
    """Image, maps and the labels that are present, as the engine takes them."""
    if name == "torch":
        picture = check_image_tensor(image, device)
        return picture, *check_probs_tensor(probs, (picture.shape[0], picture.shape[1]), device)
    pixels = check_image(image)
    return pixels, *check_probs(probs, (pixels.shape[0], pixels.shape[1]))


def _energies(maps: Any, present: NDArray[np.intp]) -> Any:
    if not isinstance(maps, np.ndarray):
        return maps[present].clamp(CLIP, 1.0).log().neg()
    unary = np.empty((len(present), *maps.shape[1:]), np.float32)
    for energies, label in zip(unary, present, strict=True):  # plane by plane: it stays in the cache
        np.clip(maps[label], CLIP, 1.0, out=energies)
        np.log(energies, out=energies)
        np.negative(energies, out=energies)
    return unary


def _zeros(like: Any, labels: int) -> Any:
    """(labels, H, W) of the same kind."""
    shape = labels, *like.shape[1:]
    return np.zeros(shape, np.float32) if isinstance(like, np.ndarray) else like.new_zeros(shape)


def from_labels(
    image: Any, labels: Any, num_labels: int, *, gt_prob: float = 0.7, backend: str = "auto", **settings: Any
) -> Problem:
    """The problem that `ppl.refine.crf_from_labels` solves."""
    checked, device = CRFSettings(**settings), device_of(labels)
    name = crf_backend(backend, device)
    pixels = check_image_tensor(image, device) if name == "torch" else check_image(image)
    indices = check_labels(labels, num_labels, (pixels.shape[0], pixels.shape[1]))
    if isinstance(gt_prob, bool) or not isinstance(gt_prob, int | float | np.floating):
        raise PPLTypeError(f"gt_prob must be a number, got {gt_prob!r}")
    if not 0 < gt_prob < 1:
        raise PPLValueError(f"gt_prob must lie between 0 and 1, both excluded, got {gt_prob}")
    checked.check_range(*pixels.shape[:2])
    present = np.flatnonzero(np.bincount(indices.ravel(), minlength=num_labels))
    absent = num_labels - len(present)
    row = np.zeros(num_labels, np.int32)
    row[present] = np.arange(len(present))
    other = -math.log((1 - gt_prob) / (num_labels - 1)) if num_labels > 1 else 0.0
    shape, rows = (len(present) + (absent > 0), *indices.shape), row[indices][None]
    unary: Any
    if name == "torch":
        import torch

        unary = torch.full(shape, other, device=device)
        unary.scatter_(0, torch.from_numpy(rows).to(device, torch.int64), -math.log(gt_prob))
    else:
        unary = np.full(shape, other, np.float32)
        np.put_along_axis(unary, rows, np.float32(-math.log(gt_prob)), axis=0)

    def finish(refined: Any) -> Any:
        if not absent:
            return to_caller(refined, labels)
        result = _zeros(refined, num_labels)
        result[:] = refined[-1]
        result[present] = refined[:-1]
        return to_caller(result, labels)

    return Problem(name, device, checked, pixels, unary, finish, max(absent, 1))


def from_preset(
    image: Any, probs: Any, name: str | CRFPreset, *, scale_factor: float = 1.0, backend: str = "auto"
) -> Problem:
    """The problem that `ppl.refine.crf_preset` solves; also with a setting that has no name."""
    chosen = name if isinstance(name, CRFPreset) else preset(name)
    arguments: dict[str, Any] = dict(chosen.arguments(scale_factor), backend=backend)
    if chosen.unary == "probs":
        return from_probs(image, probs, **arguments)
    device = device_of(probs)
    pixels, maps, present = _checked(crf_backend(backend, device), image, probs, device)
    labels = to_caller(maps[present].argmax(0), probs)
    problem = from_labels(pixels, labels, len(present), gt_prob=chosen.gt_prob, **arguments)

    def finish(refined: Any) -> Any:
        few = problem.finish(refined)
        result = _zeros(few, len(maps))
        result[present] = few
        return result

    return replace(problem, finish=finish)
