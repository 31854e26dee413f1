"""Lists of refiners as recipes write them: read and checked before any work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from ppl.errors import PPLFileNotFoundError, PPLTypeError, PPLValueError
from ppl.io.fingerprint import sha256, source_hash
from ppl.parameters import check_parameters
from ppl.refine.names import recorded_name
from ppl.refine.refiners import REFINERS, main_option, resolve_options
from ppl.refine.segment_anything import DEFAULT_MODEL, load_sam

__all__ = ["RefinerList", "RefinerSpec", "check_files", "parse_refiners", "replace_files"]


@dataclass(frozen=True)
class RefinerSpec:
    """A refiner and its options, as `parse_refiners` makes it.

    Args:
        name: key of `ppl.refine.REFINERS`.
        options: the options that were given; the others keep their defaults.

    Raises:
        PPLValueError: for an unknown name, or a value of the wrong type or out of range.
        PPLTypeError: for an unknown option.

    Example:
        >>> RefinerSpec("crf", {"preset": "irn"}).label
        'crf: irn'
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", check_parameters(REFINERS.find(self.name), **self.options))

    @property
    def label(self) -> str:
        """A short text for people: `"crf: irn"`, `"superpixels"`, `"crf: psa, iterations 5"`; a file by its name."""
        main = main_option(self.name)
        shown = {name: value.name if isinstance(value, Path) else value for name, value in self.options.items()}
        first = [str(shown.pop(main))] if main is not None and main in shown else []
        rest = [f"{name} {value}" for name, value in shown.items()]
        return f"{self.name}: {', '.join(first + rest)}" if first or rest else self.name

    @property
    def files(self) -> dict[str, Path]:
        """The files that the refiner reads, by the option that names them."""
        return {name: value for name, value in self.options.items() if isinstance(value, Path)}

    def record(self, device: str = "cpu") -> dict[str, Any]:
        """Return the name and the value of every option, for manifests and records of finished work.

        The CRF's numbers and engine are included. A file is recorded by its name and its SHA-256, so that a record
        holds for a copy of the file and does not hold for another file in the same place. A refiner from outside the
        package is recorded with the SHA-256 of its module.

        Args:
            device: device of the CRF, on which its engine depends.

        Returns:
            A dictionary that `json` can write.

        Raises:
            PPLValueError: for an option that has no lasting name, such as a `lambda` for affinities.
        """
        options = {
            name: _plain(f"{self.name}: {name}", value)
            for name, value in resolve_options(self.name, self.options, device).items()
        }
        digests = {name: sha256(path) for name, path in self.files.items() if path.is_file()}
        module = source_hash(REFINERS[self.name])
        record: dict[str, Any] = {"name": self.name, "options": options}
        return record | ({"sha256": digests} if digests else {}) | ({"module": module} if module else {})


def _plain(option: str, value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Path):
        return value.name
    if callable(value):
        return recorded_name(option, value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


RefinerList: TypeAlias = str | Sequence[Any] | Mapping[str, Any] | RefinerSpec | None
"""A list of refiners in any form that `parse_refiners` reads."""


def parse_refiners(refiners: RefinerList) -> tuple[RefinerSpec, ...]:
    """Read and check a list of refiners, such as the `refine:` entry of a recipe.

    Args:
        refiners: a list whose entries are names (`"superpixels"`), a name with its main option (`"crf: irn"`, or the
            mapping `{"crf": "irn"}` that YAML makes of it), or a name with options (`{"random_walk": {"beta": 8}}`).
            A text is split as YAML would split it: `"crf: irn, random_walk"`. None: no refiners.

    Returns:
        The refiners in order.

    Raises:
        PPLValueError: for an unknown name (the nearest one is given), a wrong value, or an entry of another form.
        PPLTypeError: for an unknown option.

    Example:
        >>> [spec.label for spec in parse_refiners([{"crf": "irn"}, {"random_walk": {"beta": 8}}, "crf: psa"])]
        ['crf: irn', 'random_walk: beta 8.0', 'crf: psa']
        >>> parse_refiners("cfr: irn")
        Traceback (most recent call last):
        ppl.errors.PPLValueError: no refiner named 'cfr'; did you mean 'crf'?
    """
    if refiners is None:
        return ()
    if isinstance(refiners, (RefinerSpec, Mapping)):
        refiners = [refiners]
    if isinstance(refiners, str):
        refiners = _yaml(f"[{refiners}]", refiners)
    if not isinstance(refiners, Sequence):
        raise PPLTypeError(f"refine must be a list, got {type(refiners).__name__}: write [crf: irn, crf: psa]")
    return tuple(_parse_entry(entry) for entry in refiners)


def _yaml(text: str, given: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PPLValueError(f"refine={given!r} cannot be read: {error.args[0]}; write crf: irn, random_walk") from None


def _parse_entry(entry: Any) -> RefinerSpec:
    if isinstance(entry, RefinerSpec):
        return entry
    if isinstance(entry, str):
        # YAML reads "crf:irn", which lacks a space, as one word.
        name, separator, value = entry.partition(":")
        return _make_spec(name.strip(), _yaml(value, entry) if separator else None)
    if isinstance(entry, Mapping) and len(entry) == 1:
        return _make_spec(*next(iter(entry.items())))
    raise PPLValueError(f"a refiner is a name or a name with options, got {entry!r}: write {{crf: irn}}")


def _make_spec(name: Any, value: Any) -> RefinerSpec:
    if value is None or isinstance(value, Mapping):
        return RefinerSpec(name, value or {})
    main = main_option(name)
    if main is None:
        raise PPLTypeError(f"the refiner {name!r} has no options, got {value!r}: write its name alone")
    return RefinerSpec(name, {main: value})


def replace_files(refiners: Sequence[Any], replace: Callable[[Path], Path]) -> list[Any]:
    """Return a list of refiners with other paths; entries that name no file stay as they were written.

    Args:
        refiners: entries as `parse_refiners` takes them.
        replace: function from a path to the new path.

    Raises:
        PPLError: as `parse_refiners`.

    Example:
        >>> replace_files(["crf: irn", "random_walk: net.safetensors"], lambda path: "models" / path)
        ['crf: irn', {'random_walk': {'affinity': 'models/net.safetensors'}}]
    """
    entries = []
    for entry in refiners:
        spec = _parse_entry(entry)
        files = {name: str(replace(path)) for name, path in spec.files.items()}
        entries.append({spec.name: {**spec.options, **files}} if files else entry)
    return entries


def check_files(refiners: Sequence[RefinerSpec]) -> None:
    """Read the networks that refiners name, so that a fault is found before any work.

    Raises:
        PPLFileNotFoundError: if a file is missing.
        PPLValueError: if a file holds no network of the refiner's kind, or a refiner that needs a network has none.
        MissingExtraError: if the refiner `sam` is named and `transformers` is not installed.
    """
    for spec in refiners:
        if spec.name == "pixel_classifier" and "network" not in spec.options:
            raise PPLValueError(
                "the refiner pixel_classifier needs a network: write pixel_classifier: pixels.safetensors (a run of "
                "`ppl run` with this refiner fits one on the CAMs of its training images)"
            )
        if spec.name == "sam" and not callable(spec.options.get("model")):
            load_sam(spec.options.get("model", DEFAULT_MODEL))
        for option, path in spec.files.items():
            if not path.is_file():
                raise PPLFileNotFoundError(f"refiner {spec.label!r}: there is no file at {path}")
            # These imports load timm, which only refiners with a network need.
            if (spec.name, option) == ("random_walk", "affinity"):
                from ppl.refine.affinity_maps import load_affinity

                load_affinity(path, device="cpu")
            elif (spec.name, option) == ("pixel_classifier", "network"):
                from ppl.refine.pixel_file import load_pixel_classifier

                load_pixel_classifier(path, device="cpu")
