"""The base class of all settings classes: one declaration of a setting for functions, recipes and commands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import Self

from ppl.errors import PPLValueError, nearest

__all__ = ["Config", "describe_faults"]


class Config(BaseModel):
    """Settings that are checked when they are made and never change afterwards.

    A subclass declares each setting once, with its default and its description. Functions, recipes and commands take
    their defaults from the subclass.

    Raises:
        PPLValueError: if a key is unknown or a value does not fit; the message names every fault.

    Example:
        >>> class BlurConfig(Config):
        ...     radius: int = 3
        >>> BlurConfig(radius="wide")
        Traceback (most recent call last):
        ppl.errors.PPLValueError: radius: Input should be a valid integer, ... (got 'wide')
        >>> BlurConfig(radios=3)
        Traceback (most recent call last):
        ppl.errors.PPLValueError: unknown key radios; did you mean 'radius'?
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise PPLValueError("; ".join(describe_faults(type(self), error))) from None

    # Pydantic makes the settings of a section without this function then, and the section's faults keep dotted keys.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def checked(cls, values: Mapping[str, Any] | None = None, /, **more: Any) -> Self:
        """Make the settings from a mapping that may hold unknown keys and wrong values.

        Args:
            values: value by key.
            **more: further values; they win over `values`.

        Returns:
            The settings.

        Raises:
            PPLValueError: if a key is unknown or a value does not fit; the message names every fault.
        """
        try:
            return cls.model_validate({**(values or {}), **more})
        except ValidationError as error:
            raise PPLValueError("; ".join(describe_faults(cls, error))) from None


def describe_faults(config: type[BaseModel], error: ValidationError, within: Iterable[str] = ()) -> list[str]:
    """Describe each fault of a failed validation in one line that names the key and the value.

    Args:
        config: the class that was validated.
        error: the error of pydantic.
        within: keys of the sections that hold the class, put in front of every key.

    Returns:
        One line per fault.

    Example:
        >>> class BlurConfig(Config):
        ...     radius: int = 3
        >>> try:
        ...     BlurConfig.model_validate({"radius": "wide"})
        ... except ValidationError as error:
        ...     describe_faults(BlurConfig, error, within=["blur"])
        ["blur.radius: Input should be a valid integer, unable to parse string as an integer (got 'wide')"]
    """
    return [_describe(config, fault, tuple(within)) for fault in error.errors()]


def _describe(config: type[BaseModel], fault: Any, within: tuple[str, ...]) -> str:
    keys = [str(part) for part in fault["loc"]]
    dotted = ".".join((*within, *keys))
    if fault["type"] == "extra_forbidden":
        return f"unknown key {dotted}{nearest(keys[-1], _keys_of(config, keys[:-1]), count=1)}"
    if fault["type"] == "missing":
        return f"{dotted} is missing"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] in ("tuple_type", "list_type"):
        message = "Input should be a list, such as [1, 2]"
    value = fault.get("input")
    shown = "" if isinstance(value, dict | list) or str(value) in message else f" (got {value!r})"
    return f"{dotted}: {message}{shown}" if dotted else f"{message}{shown}"


def _keys_of(config: type[BaseModel], parents: Iterable[str]) -> list[str]:
    """Return the keys of the section that `parents` leads to."""
    section: Any = config
    for parent in parents:
        section = section.model_fields[parent].annotation
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            return []
    return list(section.model_fields)
