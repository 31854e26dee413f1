"""No module of the package imports, at its top or within a function, one that imports it."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import ppl

ROOT = Path(ppl.__file__).parent


def imports(path: Path, modules: set[str]) -> set[str]:
    """Return the modules that a file imports; a package counts by the module that is named, if there is one."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module in modules:
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & modules
            found |= inner or {node.module}
    return found


def test_no_modules_import_each_other():
    files = {
        ".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path
        for path in ROOT.rglob("*.py")
        if path.name != "__init__.py"
    }
    graph = {name: imports(path, set(files)) for name, path in files.items()}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the modules
    assert order.index("ppl.refine.affinity_maps") < order.index("ppl.refine.refiners")
    assert order.index("ppl.cam.classifier") < order.index("ppl.cam.generate") < order.index("ppl.pipeline.cams")
