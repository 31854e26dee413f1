"""What Griffe, which reads signatures and docstrings for the reference, has to be told about this package.

* A function with the name of its module, such as `ppl.cam.generate`: Griffe takes the name for the module, Python for
  the function.
* A setting of pydantic: its default and its description are arguments of `Field`.
* A default that is taken from a settings class or a constant: the reader wants the value.
* `Annotated[type, limits]`: the reader wants the type.
* A docstring: its section "Example", and the roles of Sphinx.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
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


def bare(annotation: Any) -> Any:
    """Return an annotation without `Annotated`."""
    if isinstance(annotation, list):
        return [bare(part) for part in annotation]
    if not isinstance(annotation, griffe.Expr):
        return annotation
    if isinstance(annotation, griffe.ExprSubscript) and str(annotation.left) == "Annotated":
        return bare(annotation.slice.elements[0])
    for field in dataclasses.fields(annotation):
        if field.name != "parent":
            setattr(annotation, field.name, bare(getattr(annotation, field.name)))
    return annotation


def is_plain(value: Any) -> bool:
    """Tell whether a default reads as what it is."""
    if isinstance(value, tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


class Signatures(griffe.Extension):
    """Read names, settings and docstrings as this package means them."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Mend a docstring."""
        if obj.docstring:
            text = _ROLE.sub("`", obj.docstring.value)
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)

    def _mend(self, owner: griffe.Module | griffe.Class) -> None:
        """Mend functions, methods and settings of a module or class."""
        for member in owner.members.values():
            if isinstance(member, griffe.Function):
                self.on_function(func=member)
            elif isinstance(member, griffe.Attribute):
                self.on_attribute(attr=member)
            elif isinstance(member, griffe.Class):
                self._mend(member)

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Show the values of defaults that are names in the code, and types without limits."""
        func.returns = bare(func.returns)
        named = [parameter for parameter in func.parameters if isinstance(parameter.default, griffe.Expr)]
        for parameter in func.parameters:
            parameter.annotation = bare(parameter.annotation)
        if named and func.path.startswith("ppl."):
            owner = importlib.import_module(func.module.path)
            for name in func.path.removeprefix(f"{func.module.path}.").split("."):
                owner = inspect.getattr_static(owner, name)
            defaults = inspect.signature(getattr(owner, "__func__", owner)).parameters
            for parameter in named:
                value = defaults[parameter.name].default
                if is_plain(value):
                    parameter.default = repr(value).replace("'", '"')

    def on_attribute(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Take default and description of a setting from `Field(default, description=...)`."""
        attr.annotation = bare(attr.annotation)
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
        if cls.path == "ppl.config.Config":  # its subclasses list their settings, in place of **values
            del cls.members["__init__"]
        for name, member in list(cls.members.items()):
            if name.startswith("__") and name != "__init__" and not member.docstring:
                del cls.members[name]

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Replace modules by the functions of the same name that their package exports."""
        found = list(modules(pkg))
        for module in found:  # Griffe does not visit what lies in a module that is replaced.
            self._mend(module)
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
