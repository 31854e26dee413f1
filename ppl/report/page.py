"""HTML pages of one design: one file each, which opens without a server and without a network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ppl.io import atomic_write

__all__ = ["write_page"]


def write_page(template: str, path: str | os.PathLike[str], **values: Any) -> Path:
    """Fill a template of `ppl/report/templates` and write the page, whole or not at all.

    Args:
        template: name of the template, which extends `base.html`.
        path: the file.
        **values: the values of the template; `title` is always one. Text is escaped.

    Returns:
        The path.

    Raises:
        FileWriteError: if the file cannot be written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("ppl.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(**values)
    with atomic_write(path, "w") as handle:
        handle.write(page)
    return Path(path)
