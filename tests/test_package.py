"""What holds for the package as a whole: a light import, public names that do not vanish, imports that run one way."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import ppl

ROOT = Path(ppl.__file__).parent
NAMES = Path(__file__).with_name("public_names.json")

# Who may import whom: each folder only those to its left in this list, and what stands in ALLOWED beside that.
FLOORS = {
    "errors": set(),
    "extras": {"errors"},
    "parameters": {"errors"},
    "config": {"errors"},
    "registry": {"errors"},
    "io": {"errors"},
    "parallel": {"errors", "io"},
    "layers": {"errors", "registry"},
    "backbones": {"errors", "extras", "config", "registry", "layers"},
    "models": {"errors", "extras", "config", "registry", "io", "layers", "backbones"},
    "cam": {"errors", "config", "registry", "io", "parallel", "layers", "backbones", "models"},
    "refine": {
        *("errors", "extras", "parameters", "config", "registry", "io", "parallel"),
        *("layers", "backbones", "models", "data", "engine", "cam", "metrics"),
    },
    "data": {"errors", "extras", "config", "registry", "io", "parallel"},
    "metrics": {"errors"},
    "report": {"errors", "io", "parallel", "metrics"},
    "segment": {
        *("errors", "extras", "config", "registry", "io", "parallel"),
        *("layers", "backbones", "models", "data", "engine", "cam", "refine", "metrics"),
    },
    "engine": {"errors", "extras", "config", "io", "parallel", "backbones"},
    "train": {
        *("errors", "extras", "parameters", "config", "registry", "io", "parallel"),
        *("layers", "backbones", "models", "data", "metrics", "engine"),
    },
}


def imported_floors(file: Path) -> set[str]:
    """Folders of `ppl` that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {name.split(".")[1] for name in names if name.startswith("ppl.")}
    return found


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_run_one_way(floor: str) -> None:
    files = [ROOT / f"{floor}.py"] if (ROOT / f"{floor}.py").is_file() else sorted((ROOT / floor).rglob("*.py"))
    assert files
    for file in files:
        against = imported_floors(file) - FLOORS[floor] - {floor}
        assert not against, f"{file.relative_to(ROOT)} imports {sorted(against)}"


def test_nothing_imports_the_command_line() -> None:
    files = [file for file in ROOT.rglob("*.py") if file.relative_to(ROOT).parts[0] not in ("cli", "__main__.py")]
    assert not [file for file in files if "cli" in imported_floors(file)]


def test_import_ppl_loads_neither_torch_nor_timm() -> None:
    code = "import sys, ppl; print(sorted({'torch', 'timm', 'numpy', 'matplotlib', 'numba'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def public_names() -> dict[str, list[str]]:
    modules = [f"ppl.{module.name}" for module in pkgutil.iter_modules(ppl.__path__)]
    return {name: sorted(getattr(importlib.import_module(name), "__all__", [])) for name in ["ppl", *sorted(modules)]}


def test_no_public_name_vanishes_unnoticed() -> None:
    """After a change that is meant: `python tests/test_package.py` writes the list anew."""
    assert public_names() == json.loads(NAMES.read_text(encoding="utf-8"))


def test_every_public_name_exists_and_is_documented() -> None:
    for module, names in public_names().items():
        for name in names:
            thing = getattr(importlib.import_module(module), name)
            if callable(thing) and getattr(thing, "__module__", "").startswith("ppl"):
                assert thing.__doc__, f"{module}.{name} has no docstring"


if __name__ == "__main__":
    NAMES.write_text(json.dumps(public_names(), indent=1) + "\n", encoding="utf-8")
