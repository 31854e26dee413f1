"""What Griffe, which reads signatures and docstrings for the reference, has to be told about this package.

* A function with the name of its module, such as `ppl.cam.generate`: Griffe takes the name for the module, Python for
  the function.
* A setting of pydantic: its default and its description are arguments of `Field`.
* A docstring: its section "Example", and the roles of Sphinx.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from typing import Any

import griffe

_ROLE = re.compile(r":(?:func|meth|class|mod|attr|data|exc):`~?")


def modules(package: griffe.Module) -> Iterator[griffe.Module]:
    """Yield a package and all modules below it."""
    yield package
    for module in package.modules.values():
        if not module.is_alias:
            yield from modules(module)


class Signatures(griffe.Extension):
    """Read names, settings and docstrings as this package means them."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Mend a docstring."""
        if obj.docstring:
            text = _ROLE.sub("`", obj.docstring.value)
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)

    def on_attribute(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Take default and description of a setting from `Field(default, description=...)`."""
        field = attr.value
        if not (isinstance(field, griffe.ExprCall) and str(field.function) == "Field"):
            return
        owner = getattr(importlib.import_module(attr.module.path), attr.parent.name)
        setting = owner.model_fields[attr.name]
        attr.value = None if setting.is_required() else repr(setting.default)
        if setting.description:
            attr.docstring = griffe.Docstring(setting.description, parent=attr)

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Leave out special methods without a docstring, which the text of the class describes."""
        for name, member in list(cls.members.items()):
            if name.startswith("__") and name != "__init__" and not member.docstring:
                del cls.members[name]

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Replace modules by the functions of the same name that their package exports."""
        found = list(modules(pkg))
        inside = {m[name].path: dict(m[name].members) for m in found for name in m.exports or () if name in m.modules}
        moved = {}
        for module in found:
            for name in map(str, module.exports or ()):
                source, _, original = module.imports.get(name, "").rpartition(".")
                if source in inside and source.startswith(f"{module.path}."):
                    exported = inside[source][original]
                    module.members[name], exported.parent = exported, module
                    moved[exported.path] = exported
        for module in found:
            for name, path in module.imports.items():
                if path in moved and path != f"{module.path}.{name}":
                    module.members[name] = griffe.Alias(name, moved[path], parent=module)
