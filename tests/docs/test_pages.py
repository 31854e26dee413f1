"""What the pages show is true: Python runs, recipes are valid, commands and files exist."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
import yaml

from ppl.cli.app import app
from ppl.data import make_creatures
from ppl.pipeline import check_recipe

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BENCHMARK_PAGES = sorted((ROOT / "benchmarks").rglob("*.md"))
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block and the line that its content begins on."""

    language: str
    text: str
    line: int


def blocks(page: Path, language: str) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = (Block(m[1], m[2], text[: m.start(2)].count("\n") + 1) for m in _FENCE.finditer(text))
    return [block for block in found if block.language == language]


def links(page: Path) -> Iterator[str]:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return (match[1] for match in _LINK.finditer(text))


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def having(language: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, language)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which all pages are executed: it holds the set that they begin with."""
    folder = tmp_path_factory.mktemp("docs")
    make_creatures(folder / "creatures", train=16, val=4, size=64)
    return folder


@pytest.mark.filterwarnings("ignore:.*no image is tagged")
@pytest.mark.parametrize("page", having("python"), ids=name_of)
def test_python_on_the_page_runs(page: Path, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    namespace: dict[str, object] = {"__name__": "page"}
    for block in blocks(page, "python"):
        # Newlines in front, so that a traceback names the line of the page.
        exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", having("yaml"), ids=name_of)
def test_recipes_on_the_page_are_valid(page: Path) -> None:
    for block in blocks(page, "yaml"):
        content = yaml.safe_load(block.text)
        check_recipe({"data": {"root": "creatures"}} | content)


@pytest.mark.parametrize("page", having("sh"), ids=name_of)
def test_commands_on_the_page_exist(page: Path) -> None:
    for block in blocks(page, "sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                check_command(words)


def check_command(words: list[str]) -> None:
    program, *rest = words
    if program == "ppl":
        check_ppl(rest)
    elif program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in rest if "=" not in word} <= set(targets), words
    elif program == "pip":
        for extras in re.findall(r"ppl-wsss\[(.*?)\]", " ".join(rest)):
            config = ConfigParser()
            config.read(ROOT / "setup.cfg")
            assert set(extras.split(",")) <= set(config["options.extras_require"]), words
    elif program == "python":
        assert (ROOT / rest[0]).is_file(), words
    else:
        assert program in ("git", "cd", "accelerate"), words


def check_ppl(words: list[str]) -> None:
    """The command exists and has these options; it is not run."""
    group = typer.main.get_command(app)
    if words[0].startswith("-"):
        assert words[0] in ("--help", "-h", "--version"), words
        return
    command = group.commands[words[0]]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
    for word in words[1:]:
        assert not word.startswith("-") or word in known | {"--help", "-h"}, f"ppl {words[0]} has no {word}"


@pytest.mark.parametrize("page", PAGES + BENCHMARK_PAGES, ids=name_of)
def test_links_on_the_page_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if not re.match(r"https?://|mailto:", link):
            file, _, anchor = link.partition("#")
            target = (page.parent / file).resolve() if file else page
            assert target.exists(), link
            if anchor:
                assert anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_generated_parts_of_the_pages_are_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for page in generate.PARTS:
        stale = generate.rendered(page) != (ROOT / "docs" / page).read_text(encoding="utf-8")
        assert not stale, f"docs/{page} does not follow the code any more: run python docs/generate.py"


def test_parts_that_examples_register_have_names_of_their_own() -> None:
    """Pages and docstrings may run in one process, in any order, and a registry takes a name once."""
    sources = [*PAGES, *(ROOT / "ppl").rglob("*.py"), *(ROOT / "examples").glob("*.py")]
    call = re.compile(r"^(?: *>>> )?register_\w+\(\"(\w+)\"", re.MULTILINE)
    found = Counter(name for source in sources for name in call.findall(source.read_text(encoding="utf-8")))
    assert len(found) > 10
    assert [name for name, count in found.items() if count > 1] == []


def navigation() -> str:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    return text[text.index("\nnav:\n") :]


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    listed = set(re.findall(r"[\w/]+\.md", navigation()))
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert pages <= listed, "add the page to the navigation in mkdocs.yml"


def test_the_reference_has_every_package_with_public_names() -> None:
    """The build of the site then refuses to end without each of the names (docs/hooks.py)."""
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    public = json.loads((ROOT / "tests" / "public_names.json").read_text(encoding="utf-8"))
    assert {name for name, names in public.items() if names} == set(re.findall(r"^::: (.*)$", pages, re.MULTILINE))


def test_messages_quoted_in_troubleshooting_are_messages_of_the_library() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = [entry for entry in re.findall(r"^\*\*`(.*?)`", text, re.MULTILINE) if "..." in entry]
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "ppl").rglob("*.py"))
    fragments = {piece.strip(" .;:'\"[]") for entry in quoted for piece in entry.split("...")}
    missing = {fragment for fragment in fragments if len(fragment) > 5 and fragment not in sources}
    assert len(quoted) >= 4 and not missing
