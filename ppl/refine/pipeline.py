"""Refinement as a recipe writes it: a list of refiners by name, checked before any work, applied in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import yaml

from ppl.errors import PPLFileNotFoundError, PPLTypeError, PPLValueError, nearest
from ppl.io.fingerprint import sha256
from ppl.parameters import check_parameters, known_parameters
from ppl.refine.arrays import as_tensor, like
from ppl.refine.names import recorded_name
from ppl.refine.steps import REFINERS

__all__ = ["Recipe", "Step", "apply_steps", "check_files", "iterate_steps", "parse_steps", "with_files"]

Array = TypeVar("Array", npt.NDArray[np.generic], torch.Tensor)


@dataclass(frozen=True)
class Step:
    """One refiner with its parameters, as `parse_steps` makes it.

    Args:
        name: key of `ppl.refine.REFINERS`.
        parameters: those that were given; the rest are the refiner's defaults.

    Raises:
        PPLValueError: for an unknown name, or a value that is of the wrong type or out of range.
        PPLTypeError: for an unknown parameter.

    Example:
        >>> Step("crf", {"preset": "irn"}).label
        'crf: irn'
    """

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in REFINERS:
            raise PPLValueError(f"no refiner named {self.name!r}{nearest(str(self.name), REFINERS)}")
        checked = check_parameters(REFINERS[self.name].function, **self.parameters)
        object.__setattr__(self, "parameters", checked)

    @property
    def label(self) -> str:
        """In few words, for people: `"crf: irn"`, `"superpixels"`, `"crf: psa, iterations 5"`."""
        shorthand = REFINERS[self.name].shorthand
        rest = [f"{name} {value}" for name, value in self.parameters.items() if name != shorthand]
        first = [str(self.parameters[shorthand])] if shorthand in self.parameters else []
        return f"{self.name}: {', '.join(first + rest)}" if first or rest else self.name

    @property
    def files(self) -> dict[str, Path]:
        """The files that it reads, by the parameter that names them."""
        return {name: value for name, value in self.parameters.items() if isinstance(value, Path)}

    def record(self) -> dict[str, Any]:
        """What ran, for a manifest: the name and the value of every parameter, the CRF's numbers and engine included.

        Of files that a parameter names the SHA-256, too: another file may come to lie in the same place.

        Returns:
            A dictionary that JSON can hold.

        Raises:
            PPLValueError: for a parameter that cannot be named, such as a `lambda` for affinities.
        """
        refiner = REFINERS[self.name]
        parameters = refiner.resolve({**known_parameters(refiner.function), **self.parameters})
        parameters = {name: _plain(f"{self.name}: {name}", value) for name, value in parameters.items()}
        digests = {name: sha256(path) for name, path in self.files.items() if path.is_file()}
        return {"name": self.name, "parameters": parameters} | ({"sha256": digests} if digests else {})


def _plain(what: str, value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if callable(value):
        return recorded_name(what, value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


Recipe: TypeAlias = str | Sequence[Any] | Mapping[str, Any] | Step | None
"""What `parse_steps` reads."""


def parse_steps(recipe: Recipe) -> tuple[Step, ...]:
    """Read and check the `refine:` entry of a recipe.

    Args:
        recipe: a list whose entries are names (`"superpixels"`), a name with its main parameter (`"crf: irn"`, or the
            mapping `{"crf": "irn"}` that YAML makes of it), or a name with parameters (`{"random_walk": {"beta": 8}}`).
            A text is split as YAML would: `"crf: irn, random_walk"`. `None` means no steps.

    Returns:
        The steps in order.

    Raises:
        PPLValueError: for an unknown name (the nearest one is given), a wrong value, or an entry of another form.
        PPLTypeError: for an unknown parameter.

    Example:
        >>> [step.label for step in parse_steps([{"crf": "irn"}, {"random_walk": {"beta": 8}}, "crf: psa"])]
        ['crf: irn', 'random_walk: beta 8.0', 'crf: psa']
        >>> parse_steps("cfr: irn")
        Traceback (most recent call last):
        ppl.errors.PPLValueError: no refiner named 'cfr'; did you mean 'crf'?
    """
    if recipe is None:
        return ()
    if isinstance(recipe, (Step, Mapping)):
        recipe = [recipe]
    if isinstance(recipe, str):
        recipe = _yaml_list(recipe)
    if not isinstance(recipe, Sequence):
        raise PPLTypeError(f"refine must be a list of steps, got {type(recipe).__name__}: write [crf: irn, crf: psa]")
    return tuple(step for entry in recipe for step in _parse_entry(entry))


def _yaml_list(text: str) -> list[Any]:
    entries: list[Any] = _yaml(f"[{text}]", text)
    return entries


def _yaml(text: str, given: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PPLValueError(f"refine={given!r} cannot be read: {error.args[0]}; write crf: irn, random_walk") from None


def _parse_entry(entry: Any) -> list[Step]:
    if isinstance(entry, Step):
        return [entry]
    if isinstance(entry, str):
        # "crf:irn" lacks the space that YAML wants
        name, separator, value = entry.partition(":")
        return [_make_step(name.strip(), _yaml(value, entry) if separator else None)]
    if isinstance(entry, Mapping) and len(entry) == 1:
        return [_make_step(*next(iter(entry.items())))]
    raise PPLValueError(f"a refine step is a name or a name with parameters, got {entry!r}: write {{crf: irn}}")


def _make_step(name: Any, value: Any) -> Step:
    if name not in REFINERS:
        raise PPLValueError(f"no refiner named {name!r}{nearest(str(name), REFINERS)}")
    if value is None:
        return Step(name)
    return Step(name, value if isinstance(value, Mapping) else {REFINERS[name].shorthand: value})


def with_files(recipe: Sequence[Any], place: Callable[[Path], Path]) -> list[Any]:
    """The entries of a list of steps with other paths to the files that they name; all else stays as it was written.

    Args:
        recipe: entries as `parse_steps` takes them.
        place: from a path to the one that takes its place.

    Returns:
        The entries.

    Raises:
        PPLError: as `parse_steps`.

    Example:
        >>> with_files(["crf: irn", "random_walk: net.safetensors"], lambda path: "models" / path)
        ['crf: irn', {'random_walk': {'affinity': 'models/net.safetensors'}}]
    """
    entries = []
    for entry in recipe:
        (step,) = parse_steps([entry])
        files = {name: str(place(path)) for name, path in step.files.items()}
        entries.append({step.name: {**step.parameters, **files}} if files else entry)
    return entries


def check_files(steps: Sequence[Step]) -> None:
    """Read the files that steps name, so that a fault is told before any work.

    Args:
        steps: of `parse_steps`.

    Raises:
        PPLFileNotFoundError: if one is not there.
        PPLValueError: if it is no affinity network that can be used here.
    """
    for step in steps:
        for path in step.files.values():
            if not path.is_file():
                raise PPLFileNotFoundError(f"step {step.label!r}: no affinity network at {path}")
            from ppl.refine.affinity_maps import load_affinity  # loads timm, which only these steps need

            load_affinity(path, device="cpu")


def iterate_steps(
    steps: Sequence[Step], image: npt.NDArray[np.generic] | torch.Tensor, probs: Array
) -> Iterator[tuple[Step, Array]]:
    """Apply steps one after the other and hand out what each one made.

    Args:
        steps: of `parse_steps`.
        image: `(H, W, 3)` uint8.
        probs: `(L, H, W)` probabilities, the background in channel 0.

    Yields:
        The step, and the probabilities after it: never negative, every pixel sums to 1.

    Raises:
        PPLValueError: for maps that a step cannot take.

    Example:
        >>> image, probs = np.zeros((4, 5, 3), np.uint8), np.full((2, 4, 5), 0.5, np.float32)
        >>> [(step.label, maps.shape) for step, maps in iterate_steps(parse_steps("guided_filter: 2"), image, probs)]
        [('guided_filter: 2', (2, 4, 5))]
    """
    for step in steps:
        refined = as_tensor(REFINERS[step.name].function(image, probs, **step.parameters), "maps", "L H W").clamp(min=0)
        total = refined.sum(dim=0, keepdim=True)
        # Where a step left nothing at all, nothing is known.
        probs = like(probs, torch.where(total > 0, refined / total.clamp(min=1e-12), 1.0 / max(len(refined), 1)))
        yield step, probs


def apply_steps(steps: Sequence[Step], image: npt.NDArray[np.generic] | torch.Tensor, probs: Array) -> Array:
    """Apply steps one after the other.

    Args:
        steps: of `parse_steps`.
        image: `(H, W, 3)` uint8.
        probs: `(L, H, W)` probabilities, the background in channel 0; numpy or torch.

    Returns:
        The probabilities after the last step, as `probs`; `probs` itself without steps.

    Raises:
        PPLValueError: for maps that a step cannot take.

    Example:
        >>> image, probs = np.zeros((4, 5, 3), np.uint8), np.full((2, 4, 5), 0.5, np.float32)
        >>> apply_steps(parse_steps(["guided_filter", "superpixels"]), image, probs).shape
        (2, 4, 5)
    """
    for _, refined in iterate_steps(steps, image, probs):
        probs = refined
    return probs
