"""Plugins: modules of the user that register methods, refiners, losses and other parts before a recipe is checked."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ppl.errors import PPLError, PPLFileNotFoundError, PPLValueError

__all__ = ["check_allowed", "import_plugins"]


def import_plugins(names: Iterable[str], folders: Sequence[Path] = ()) -> None:
    """Import the modules that a recipe names under `plugins`. A module that is imported already stays as it is.

    Call this only for names that the user has given: on the command line, in code, or in a recipe file whose path the
    user has given. Names in a checkpoint or in the recipe of a run folder go through `check_allowed` first.

    Args:
        names: dotted module names.
        folders: where to look for the modules besides `sys.path`, such as the recipe's folder. A folder that holds one
            joins the end of `sys.path`: worker processes must find the module too.

    Raises:
        PPLFileNotFoundError: if there is no module of a name.
        PPLValueError: if a name is not a module name, or another module hides the one in `folders`.
        PPLError: if a module raises an error while it is imported.

    Example:
        >>> import_plugins(["json"])
        >>> import_plugins(["my-module.py"])
        Traceback (most recent call last):
        ppl.errors.PPLValueError: plugin 'my-module.py' is not the name of a module: write my_module for my_module.py
    """
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise PPLValueError(f"plugin {name!r} is not the name of a module: write my_module for my_module.py")
        own = _find(name, folders)
        if own is not None and str(own[0]) not in sys.path:
            sys.path.append(str(own[0]))
        module = _import(name, folders)
        found = getattr(module, "__file__", None)
        if own is not None and (found is None or Path(found).resolve() != own[1]):
            raise PPLValueError(f"plugin {name!r} is {found or 'built into Python'}, not {own[1]}: rename your module")


def _find(name: str, folders: Sequence[Path]) -> tuple[Path, Path] | None:
    """Return the folder that holds a module and the module's file, or None if it is in none of the folders."""
    for folder in map(Path.resolve, folders):
        base = folder.joinpath(*name.split("."))
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.is_file():
                return folder, file
    return None


def _import(name: str, folders: Sequence[Path]) -> Any:
    importlib.invalidate_caches()  # the file may be younger than Python's listing of its folder
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise PPLError(f"plugin {name!r} cannot be imported: {error}") from error
        places = ", ".join([*dict.fromkeys(str(folder.resolve()) for folder in folders), "sys.path"])
        raise PPLFileNotFoundError(f"there is no plugin {name!r} in {places}: check the name") from None
    except PPLError as error:
        raise PPLError(f"plugin {name!r} cannot be imported: {error}") from error
    except Exception as error:  # the user's module runs here and may raise anything
        raise PPLError(f"plugin {name!r} cannot be imported: {type(error).__name__}: {error}") from error


def check_allowed(stored: Sequence[str], given: Sequence[str], source: str) -> None:
    """Refuse plugins that only a stored recipe names: reading another person's run must not run their code.

    Args:
        stored: plugins that the recipe of a run folder names.
        given: plugins that the user gave with the command.
        source: where the recipe was stored, for the message.

    Raises:
        PPLValueError: if a plugin is stored but not given.

    Example:
        >>> check_allowed(["mine"], [], "runs/a")
        Traceback (most recent call last):
        ppl.errors.PPLValueError: runs/a was made with the plugin 'mine'. ... add --plugin mine if you trust it
    """
    missing = [name for name in stored if name not in given]
    if missing:
        options = " ".join(f"--plugin {name}" for name in missing)
        what = "plugin" if len(missing) == 1 else "plugins"
        raise PPLValueError(
            f"{source} was made with the {what} {', '.join(map(repr, missing))}. A stored recipe does not make code "
            f"run: add {options} if you trust it"
        )
