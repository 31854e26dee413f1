"""Check the arrays of a caller and make energies of them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl.errors import PPLValueError
from ppl.refine.crf.arrays import device_of, to_caller
from ppl.refine.crf.backends import crf_backend
from ppl.refine.crf.config import CrfConfig, per_axis
from ppl.refine.crf.problem import Problem
from ppl.refine.crf.validation import (
    CLIP,
    check_features,
    check_image,
    check_image_tensor,
    check_labels,
    check_probs,
    check_probs_tensor,
    check_range,
    check_unary,
)

__all__ = ["make_problem"]


def make_problem(
    image: Any,
    probs: Any = None,
    *,
    labels: Any = None,
    num_labels: int | None = None,
    unary: Any = None,
    features: Any = None,
    config: CrfConfig,
    backend: str = "auto",
) -> Problem:
    """Check arrays and make their energies; the arguments are those of `ppl.refine.crf`.

    Raises:
        PPLTypeError: if an array has a wrong type.
        PPLValueError: for a wrong combination of arguments, a wrong shape or a wrong value.
    """
    given = {"probs": probs, "labels": labels, "unary": unary}
    names = [name for name, value in given.items() if value is not None]
    if len(names) != 1:
        raise PPLValueError(
            f"crf takes exactly one of probs, labels and unary, got {' and '.join(names) if names else 'none'}"
        )
    if num_labels is not None and labels is None:
        raise PPLValueError(f"num_labels={num_labels} goes with labels; {names[0]} tell the number of labels")
    maps = given[names[0]]
    device = device_of(maps)
    name = crf_backend(backend, device)
    empty = Problem(name, device, config, None, None, None, lambda refined: to_caller(refined, maps))
    problem, size = _with_guide(empty, image, features)
    if labels is not None:
        problem = _with_labels(problem, labels, num_labels, size)
    elif unary is not None:
        problem = replace(problem, unary=_on(problem, check_unary(unary, size)))
    else:
        problem = _with_probs(problem, probs, size)
    _check_compat(config, len(problem.unary))
    return problem


def _on(problem: Problem, array: NDArray[Any]) -> Any:
    """Return an array as the engine takes it."""
    if problem.backend != "torch":
        return array
    import torch

    return torch.from_numpy(array if array.flags.writeable else array.copy()).to(problem.device)


def _with_guide(problem: Problem, image: Any, features: Any) -> tuple[Problem, tuple[int, int]]:
    """Return the problem with its image or its features, and their height and width."""
    if features is None:
        pixels = check_image_tensor(image, problem.device) if problem.backend == "torch" else check_image(image)
        height, width = pixels.shape[:2]
        per_axis("bilateral_srgb", problem.config.bilateral_srgb, 3)
        colours = 255.0
        problem = replace(problem, image=pixels)
    else:
        values = check_features(features)
        height, width, channels = values.shape
        if image is not None and tuple(image.shape[:2]) != (height, width):
            raise PPLValueError(
                f"features are {height}x{width} but the image is {image.shape[0]}x{image.shape[1]}; resize one of them"
            )
        per_axis("bilateral_srgb", problem.config.bilateral_srgb, channels)
        colours = float(np.abs(values).max(axis=(0, 1)).sum()) * (channels + 3) / 6
        problem = replace(problem, features=_on(problem, values))
    per_axis("gaussian_sxy", problem.config.gaussian_sxy, 2)
    per_axis("bilateral_sxy", problem.config.bilateral_sxy, 2)
    check_range(problem.config, height, width, colours)
    return problem, (height, width)


def _check_compat(config: CrfConfig, labels: int) -> None:
    for name in ("gaussian_compat", "bilateral_compat"):
        value = getattr(config, name)
        if isinstance(value, tuple) and len(value) != labels:
            raise PPLValueError(f"{name} is for {len(value)} labels, but the maps have {labels}")


def _with_probs(problem: Problem, probs: Any, size: tuple[int, int]) -> Problem:
    maps: Any
    if problem.backend == "torch":
        maps, present = check_probs_tensor(probs, size, problem.device)
    else:
        maps, present = check_probs(probs, size)
    if not problem.config.is_potts:
        present = np.arange(len(maps))  # a label that is absent may be attracted by another one
    if problem.config.energies_from == "labels":
        few = _with_labels(problem, to_caller(maps[present].argmax(0), maps), len(present), size)
    else:
        few = replace(problem, unary=_energies(maps, present))
    if len(present) == len(maps):
        return few

    def finish(refined: Any) -> Any:
        refined = few.finish(refined)
        result = _zeros(refined, len(maps))
        result[present] = refined
        return result

    return replace(few, finish=finish)


def _energies(maps: Any, present: NDArray[np.intp]) -> Any:
    if not isinstance(maps, np.ndarray):
        return maps[present].clamp(CLIP, 1.0).log().neg()
    unary = np.empty((len(present), *maps.shape[1:]), np.float32)
    for energies, label in zip(unary, present, strict=True):  # plane by plane, so that each stays in the cache
        np.clip(maps[label], CLIP, 1.0, out=energies)
        np.log(energies, out=energies)
        np.negative(energies, out=energies)
    return unary


def _zeros(like: Any, labels: int) -> Any:
    """Return (labels, H, W) zeros of the same kind."""
    shape = labels, *like.shape[1:]
    return np.zeros(shape, np.float32) if isinstance(like, np.ndarray) else like.new_zeros(shape)


def _with_labels(problem: Problem, labels: Any, num_labels: int | None, size: tuple[int, int]) -> Problem:
    indices, count = check_labels(labels, num_labels, size)
    gt_prob = problem.config.gt_prob
    if problem.config.is_potts:
        present = np.flatnonzero(np.bincount(indices.ravel(), minlength=count))
    else:
        present = np.arange(count)
    # Labels that occur nowhere have the same energy everywhere, so that one computation serves all of them.
    absent = count - len(present)
    row = np.zeros(count, np.int32)
    row[present] = np.arange(len(present))
    other = -math.log((1 - gt_prob) / (count - 1)) if count > 1 else 0.0
    shape, rows = (len(present) + (absent > 0), *indices.shape), row[indices][None]
    unary: Any
    if problem.backend == "torch":
        import torch

        unary = torch.full(shape, other, dtype=torch.float32, device=problem.device)
        unary.scatter_(0, torch.from_numpy(rows).to(problem.device, torch.int64), -math.log(gt_prob))
    else:
        unary = np.full(shape, other, np.float32)
        np.put_along_axis(unary, rows, np.float32(-math.log(gt_prob)), axis=0)

    def finish(refined: Any) -> Any:
        if absent:
            few, refined = refined, _zeros(refined, count)
            refined[:] = few[-1]
            refined[present] = few[:-1]
        return problem.finish(refined)

    return replace(problem, unary=unary, finish=finish, copies=max(absent, 1))
