"""Hooks of the site: files beside `docs/` become pages, links lead to them, and the built site is checked.

MkDocs calls the functions `on_...` (mkdocs.yml). A file keeps its path in the repository, so that one link works in the
repository and on the site.
"""

from __future__ import annotations

import json
import posixpath
import re
import zlib
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
BESIDE = ("*.md", "benchmarks/**/*.md", "examples/*.py", "examples/notebooks/*.ipynb")
NOT_SHOWN = {"README.md", "examples/README.md"}
_LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)\s#]+)(?=[#)])")
_FETCHED = re.compile(r"""<(?:script|img|iframe|source)[^>]+src=["']?(https?:)?//|<link[^>]+href=["']?(https?:)?//""")


def notebook_page(name: str, text: str) -> str:
    """Return the cells of a notebook as a page, with a link to the file under the title."""
    cells = json.loads(text)["cells"]
    blocks = {"markdown": "{}", "code": "```python\n{}\n```"}
    title, *others = (blocks[cell["cell_type"]].format("".join(cell["source"])) for cell in cells)
    heading, _, text = title.partition("\n")
    return "\n\n".join([heading, f"This page is a notebook: [{name}]({name}).", text, *others])


def example_page(name: str, text: str) -> str:
    """Return a script as a page that is as wide as its lines."""
    return f"---\nhide: [navigation, toc]\n---\n# {name}\n\n```python\n{text}```\n"


def examples_index() -> str:
    """Return a list of all examples with the first sentence of each."""
    lines = ["# Examples", "", "Scripts that run as they stand, offline, in seconds.", ""]
    for path in sorted((ROOT / "examples").glob("*.py")):
        sentence = path.read_text(encoding="utf-8").split('"""')[1].split("\n\n")[0].replace("\n", " ")
        lines.append(f"* [{path.name}]({path.stem}.md): {sentence}")
    for path in sorted((ROOT / "examples" / "notebooks").glob("*.ipynb")):
        first = json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"][0]
        lines.append(f"* [notebooks/{path.name}](notebooks/{path.stem}.md): {first.removeprefix('# ').strip()}")
    return "\n".join(lines) + "\n"


def shown_as(path: str) -> str:
    """Return the place on the site of a file of the repository."""
    if path == "examples":
        return "examples/index.md"
    return re.sub(r"^(examples/.*)\.(py|ipynb)$", r"\1.md", path).removeprefix("docs/")


def repository_path(page: File) -> str:
    """Return the path of a page's source in the repository."""
    return page.src_uri if page.generated_by else f"docs/{page.src_uri}"


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made of files beside `docs/`."""
    for pattern in BESIDE:
        for path in sorted(ROOT.glob(pattern)):
            name, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
            if name in NOT_SHOWN:
                continue
            if path.suffix == ".py":
                text = example_page(path.name, text)
            elif path.suffix == ".ipynb":
                files.append(File.generated(config, name, content=text))
                text = notebook_page(path.name, text)
            files.append(File.generated(config, shown_as(name), content=text))
    files.append(File.generated(config, "examples/index.md", content=examples_index()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Let links to files beside `docs/` lead to their place on the site; files that are no pages are copied."""
    here = posixpath.dirname(repository_path(page.file))

    def on_site(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(here, match[1]))
        target = path if page.file.generated_by and match[1].endswith(".ipynb") else shown_as(path)
        if files.get_file_from_path(target) is None and (ROOT / path).is_file() and path not in NOT_SHOWN:
            files.append(File.generated(config, target, abs_src_path=str(ROOT / path)))
        return posixpath.relpath(target, posixpath.dirname(page.file.src_uri) or ".")

    return _LINK.sub(on_site, markdown).replace(" ± ", "\u00a0±\u00a0")  # no line breaks inside a figure


def on_post_build(config: Any) -> None:
    """Refuse a site that lacks a public name, or that fetches anything from another host."""
    site = Path(config["site_dir"])
    inventory = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    shown = {line.split()[0] for line in zlib.decompress(inventory).decode().splitlines()}
    public = json.loads((ROOT / "tests" / "public_names.json").read_text(encoding="utf-8"))
    missing = [f"{module}.{name}" for module, names in public.items() for name in names]
    missing = [name for name in missing if name not in shown]
    if missing:
        raise PluginError(f"docs/reference lacks {', '.join(missing)}")
    fetched = [page.relative_to(site) for page in site.rglob("*.html") if _FETCHED.search(page.read_text("utf-8"))]
    if fetched:
        raise PluginError(f"pages that fetch from another host: {', '.join(map(str, fetched))}")
