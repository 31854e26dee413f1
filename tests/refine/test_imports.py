"""Refinement is layered: no two modules import each other, not even inside functions."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import ppl


def imports(path: Path, modules: set[str]) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module in modules:
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & modules
            found |= inner or {node.module}
    return found


def test_no_two_modules_import_each_other():
    root = Path(ppl.__file__).parent
    files = {
        ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (root / "refine").rglob("*.py")
    }
    graph = {name: imports(path, set(files)) for name, path in files.items()}
    order = list(TopologicalSorter(graph).static_order())
    assert order.index("ppl.refine.affinity_maps") < order.index("ppl.refine.refiners")
    assert order.index("ppl.refine.refiners") < order.index("ppl.refine.affinity")
